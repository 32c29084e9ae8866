"""What does not fit between the tokens of the functions and the model that is to read them."""

from collections.abc import Mapping

from modularity.data import TokenTable
from modularity.models import ModelDescription
from modularity.types import Site, SiteShape


def token_problems(
    description: ModelDescription, shapes: Mapping[Site, SiteShape], tables: Mapping[str, TokenTable]
) -> list[str]:
    """One message for each function whose tokens the model cannot read, or whose rows its sites do not have."""
    return [*_vocabulary_problems(description, tables), *_decoder_problems(description, shapes, tables)]


def _vocabulary_problems(description: ModelDescription, tables: Mapping[str, TokenTable]) -> list[str]:
    """Functions with token ids beyond the embedding, as the tokenizer of another model gives them."""
    largest = {name: int(table.token_ids.max()) for name, table in tables.items()}
    return [
        f"function {name!r} has the token {token}, but {description.name!r} embeds {description.vocabulary_size} "
        "tokens, counted from 0; give the tokenizer that the model was trained with"
        for name, token in largest.items()
        if token >= description.vocabulary_size
    ]


def _decoder_problems(
    description: ModelDescription, shapes: Mapping[Site, SiteShape], tables: Mapping[str, TokenTable]
) -> list[str]:
    """Functions that ask for positions of the text at sites of a decoder that does not read the text."""
    sites = [str(site) for site in shapes if site.stack == "decoder" and "encoder" in description.stacks]
    return [
        f"function {name!r} takes rows at token positions of the text, but {', '.join(sites)} has the decoder's start "
        "token as its only position; pool with max or mean, or capture encoder sites"
        for name, table in tables.items()
        if sites and table.reduction is None
    ]
