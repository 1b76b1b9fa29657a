"""The tokenizer of the world: one token a symbol, one a rule word. A real ``tokenizer.json``, read by transformers."""

from __future__ import annotations

from tokenizers import Regex, Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from fstsim.llm.tasks.families import FAMILIES

PAD, BOS, EOS, UNK = "<pad>", "<bos>", "<eos>", "<unk>"
MARKS = ("|", "=", ">", ";", "?", ":")


def vocabulary() -> list[str]:
    """All tokens in the order of their ids."""
    symbols = [symbol for family in FAMILIES.values() for symbol in family.symbols]
    words = [word for family in FAMILIES.values() for word in family.rules]
    return [PAD, BOS, EOS, UNK, *MARKS, *symbols, *words]


def build_tokenizer() -> PreTrainedTokenizerFast:
    """Word-level tokenizer: capital letters, digits and marks are tokens of their own, small-letter words are rules."""
    raw = Tokenizer(models.WordLevel({token: i for i, token in enumerate(vocabulary())}, unk_token=UNK))
    pieces = pre_tokenizers.Split(Regex("[A-Z]|[0-9]|[a-z]+|[^A-Za-z0-9\\s]"), "isolated")
    raw.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pieces])
    raw.post_processor = processors.TemplateProcessing(single=f"{BOS} $A", special_tokens=[(BOS, 1)])
    return PreTrainedTokenizerFast(tokenizer_object=raw, pad_token=PAD, bos_token=BOS, eos_token=EOS, unk_token=UNK)
