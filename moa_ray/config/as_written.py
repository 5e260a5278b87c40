"""Mappings that are checked as a model and kept as the file has them."""

from typing import Any

from pydantic import BaseModel, GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema


class AsWritten:
    """Mark a mapping, in its annotation, to be validated as a model and kept as it was written.

    Parameters
    ----------
    model : type
        A pydantic model, which also gives the mapping's JSON schema.

    Notes
    -----
    Hyperparameters stand in OUT/sweep.yaml and in the ledger as the user wrote them, and are compared with what the
    next run writes there: 8 orientations must not become true, nor a part of an augmentation a whole one.
    """

    def __init__(self, model: type[BaseModel]) -> None:
        self.model = model

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Validate by the model, and keep the value."""
        return core_schema.no_info_wrap_validator_function(
            lambda value, validate: (validate(value), value)[1],
            handler.generate_schema(self.model),
            serialization=core_schema.plain_serializer_function_ser_schema(lambda value: value),
        )
