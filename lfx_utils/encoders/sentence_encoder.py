"""From texts to tokens, and from a transformer's token states to one vector a text."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

SPARE = 128  # rows that publishers add to a vocabulary to round it up


@dataclass(frozen=True)
class Tokens:
    """Texts as an encoder takes them, the shorter ones padded.

    Args:
        ids: `(B, T)`.
        mask: `(B, T)`, 1 for a token and 0 for padding.
        reference: `(B, T)`, the ids with the padding token in place of every token of a word; special tokens stay.
        words: `(B, T)`, the number of the word that a token is part of, −1 where it is part of none.
        spelled: the words of each text, as they stand in it.
    """

    ids: Tensor
    mask: Tensor
    reference: Tensor
    words: Tensor
    spelled: list[list[str]]


class SentenceEncoder(nn.Module):
    """Token ids `(B, T)` and a padding mask `(B, T)` to representations `(B, D)`.

    Args:
        network: a model of `transformers` whose output has a `last_hidden_state` `(B, T, D)`.
        tokenizer: its own, one of the fast ones.
        pooling: `"mean"` or `"max"` over the tokens that are no padding, or `"cls"`, the first token's state.
        normalise: bring representations to length 1.
        length: the most tokens of a text, special ones included; what the tokenizer says when left out.

    Raises:
        ValueError: an unknown pooling, or a tokenizer that was made for another network.
    """

    def __init__(self, network: nn.Module, tokenizer, pooling="mean", normalise=True, length: int | None = None):
        super().__init__()
        if pooling not in ("mean", "max", "cls"):
            raise ValueError(f"pooling must be 'mean', 'max' or 'cls', got {pooling!r}.")
        if tokenizer.pad_token_id is None or not tokenizer.is_fast:
            raise ValueError("tokenizer must be a fast one with a padding token; set its pad_token if it has none.")
        rows = network.get_input_embeddings().num_embeddings
        if not len(tokenizer) <= rows < len(tokenizer) + SPARE:
            raise ValueError(
                f"tokenizer knows {len(tokenizer)} tokens and the network {rows}: it was made for another network."
            )
        self.network, self.tokenizer, self.pooling, self.normalise = network, tokenizer, pooling, normalise
        self.length = length or tokenizer.model_max_length
        self.train(network.training)

    @property
    def embedding(self) -> nn.Module:
        """The layer that looks up a vector for each id, before positions are added."""
        return self.network.get_input_embeddings()

    def forward(self, ids: Tensor, mask: Tensor | None = None) -> Tensor:
        """Map token ids to `(B, D)`; without a mask, what equals the padding token is padding."""
        mask = ids != self.tokenizer.pad_token_id if mask is None else mask.bool()
        states = self.network(input_ids=ids, attention_mask=mask.long()).last_hidden_state
        inside = mask[..., None]
        if self.pooling == "mean":
            pooled = (states * inside).sum(dim=1) / inside.sum(dim=1)
        elif self.pooling == "max":
            pooled = states.masked_fill(~inside, -torch.inf).amax(dim=1)
        else:
            pooled = states[:, 0]
        return functional.normalize(pooled, dim=1) if self.normalise else pooled

    def tokenise(self, texts: list[str]) -> Tokens:
        """Return the texts' tokens, on the network's device.

        Raises:
            TypeError: not a list of strings.
            ValueError: no text, a text without a word, or one longer than the encoder takes.
        """
        if isinstance(texts, str) or not all(isinstance(text, str) for text in texts):
            raise TypeError(f"texts must be a list of strings, got {texts!r:.80}.")
        if not len(texts):
            raise ValueError("texts is empty; at least one is needed.")
        tokenizer = self.tokenizer
        found = tokenizer(list(texts), padding=True, return_tensors="pt", truncation=False)
        ids, mask = found["input_ids"], found["attention_mask"]
        if mask.sum(dim=1).max() > self.length:
            longest = int(mask.sum(dim=1).argmax())
            raise ValueError(
                f"texts[{longest}] has {int(mask[longest].sum())} tokens, and the encoder takes {self.length}; "
                "cut it into sentences first."
            )
        special = torch.isin(ids, torch.tensor(sorted(set(tokenizer.all_special_ids) - {tokenizer.unk_token_id})))
        numbers = torch.full_like(ids, -1)
        spelled = []
        for row, text in enumerate(texts):
            of_token = [None if special[row, at] else word for at, word in enumerate(found.word_ids(row))]
            order = sorted({word for word in of_token if word is not None})
            if not order:
                raise ValueError(f"texts[{row}] = {text!r:.60} has no word to explain.")
            numbers[row] = torch.tensor([-1 if word is None else order.index(word) for word in of_token])
            spelled.append([text[slice(*found.word_to_chars(row, word))] for word in order])
        reference = torch.where(numbers < 0, ids, tokenizer.pad_token_id)
        device = self.embedding.weight.device
        return Tokens(*(each.to(device) for each in (ids, mask, reference, numbers)), spelled)

    @torch.no_grad()
    def represent(self, texts: list[str], batch_size: int = 64) -> Tensor:
        """Return the representations of texts, `(N, D)`; those of like length go through the encoder together."""
        order = sorted(range(len(texts)), key=lambda row: len(texts[row]))
        found = {}
        for start in range(0, len(order), batch_size):
            rows = order[start : start + batch_size]
            tokens = self.tokenise([texts[row] for row in rows])
            found.update(zip(rows, self(tokens.ids, tokens.mask)))
        return torch.stack([found[row] for row in range(len(texts))])
