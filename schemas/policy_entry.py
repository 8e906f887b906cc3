"""What every mapping of the policy file has in common."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

# JSON's safe integer, as for token counts.
COUNT_MAX = 2**53
PERCENT_MAX = 1_000
NAME_LENGTH_MAX = 200

Count = Annotated[int, Field(ge=0, le=COUNT_MAX)]
Percent = Annotated[int, Field(ge=1, le=PERCENT_MAX)]
Text = Annotated[str, Field(max_length=NAME_LENGTH_MAX)]


class Entry(BaseModel):
    """A mapping of the file: unknown fields are errors, and an empty value counts as absent."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _without_empty(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        return {name: content for name, content in value.items() if content is not None}
