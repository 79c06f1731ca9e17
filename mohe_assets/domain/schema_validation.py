"""Validate rows against the rules of domain/columns.py with pandera. No SQL, no Dagster.

pandera and pandas are imported inside the functions, because the import takes a second.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mohe_assets.domain.columns import Column

if TYPE_CHECKING:
    import pandera.pandas as pa

SAMPLE = 5  # values kept per violated rule

_DTYPES = {
    "bool": "bool",
    "date": "datetime64[us]",
    "int8": "int64",
    "numeric": "float64",
    "text": "string",
    "timestamptz": "datetime64[us, UTC]",
    "varchar": "string",
}


@dataclass(kw_only=True, slots=True)
class RuleViolation:
    """A rule that `count` values of a column violate; `sample` has some with their row ids."""

    column: str
    rule: str
    count: int = 0
    sample: list[dict[str, object]] = field(default_factory=list)


def schema(columns: Sequence[Column], *, in_order: tuple[str, str]) -> "pa.DataFrameSchema":
    """Return the pandera schema; of the columns `in_order`, the first must be <= the second."""
    import pandera.pandas as pa  # noqa: PLC0415 - see above

    fields: dict[Any, Any] = {}
    for column in columns:
        checks = []
        if column.pattern is not None:
            checks.append(pa.Check.str_contains(column.pattern, error=f"matches {column.pattern}"))
        if column.between is not None:
            low, high = column.between
            error = f"between {low:g} and {high:g}"
            checks.append(
                pa.Check.in_range(low, high, include_min=False, include_max=False, error=error)
            )
        if column.one_of is not None:
            checks.append(pa.Check.isin(column.one_of, error=f"one of {', '.join(column.one_of)}"))
        fields[column.name] = pa.Column(
            _DTYPES[column.type], checks=checks, nullable=column.nullable, coerce=True
        )
    first, second = in_order
    order = pa.Check(lambda frame: frame[first] <= frame[second], error=f"{first} <= {second}")
    return pa.DataFrameSchema(fields, checks=[order], strict=True)


def rule_violations(
    columns: Sequence[Column],
    batches: Iterable[Sequence[Mapping[str, object]]],
    *,
    in_order: tuple[str, str],
) -> list[RuleViolation]:
    """Return the violated rules, most violations first; rows are identified by `id`.

    Batches are validated separately, which bounds the memory.
    """
    import pandas as pd  # noqa: PLC0415
    from pandera.errors import SchemaErrors  # noqa: PLC0415

    expected = schema(columns, in_order=in_order)
    violations: dict[tuple[str, str], RuleViolation] = {}
    for batch in batches:
        frame = pd.DataFrame(batch, columns=[column.name for column in columns])
        frame.index = pd.Index(frame["id"].to_numpy())
        try:
            expected.validate(frame, lazy=True)
        except SchemaErrors as errors:
            cases = errors.failure_cases
            # pandera reports a rule over two columns for every column; keep the first of the two.
            is_column_rule = cases["schema_context"] != "DataFrameSchema"
            cases = cases[is_column_rule | (cases["column"] == in_order[0])]
            for (column, rule), group in cases.groupby(["column", "check"], dropna=False):
                key = (str(column), str(rule))
                violation = violations.setdefault(key, RuleViolation(column=key[0], rule=key[1]))
                violation.count += len(group)
                for row_id, value in zip(group["index"], group["failure_case"], strict=True):
                    if len(violation.sample) < SAMPLE:
                        violation.sample.append({"id": str(row_id), "value": str(value)})
    return sorted(violations.values(), key=lambda each: (-each.count, each.column, each.rule))
