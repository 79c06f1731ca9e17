-- Run once by PostgreSQL's image, as its superuser, when the volume is new: the owner of the data is no superuser. It makes the
-- database of Dagster and the roles of sql/roles.sql, and for that it may create databases and roles.
\getenv password POSTGRES_PASSWORD
CREATE ROLE mohe_user LOGIN CREATEDB CREATEROLE PASSWORD :'password';
ALTER DATABASE mohe_db OWNER TO mohe_user;
-- The superuser has no password any more: it is reached inside the container only.
ALTER ROLE postgres PASSWORD NULL;
