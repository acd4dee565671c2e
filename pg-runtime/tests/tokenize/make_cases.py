"""Makes the models and the cases that `tests/tokenize.rs` checks the encoder against.

    pip install sentencepiece==0.2.3 protobuf && python make_cases.py

The sample's tokenizer has the challenge's settings; the small models here turn every other setting that changes
the ids. Their normalisation is `identity`: the rules of `nmt_nfkc` alone are 240 kB.
"""

import gzip
import io
import json
import pathlib
import random
import zlib

import sentencepiece
from sentencepiece import SentencePieceProcessor, SentencePieceTrainer
from sentencepiece import sentencepiece_model_pb2 as proto

HERE = pathlib.Path(__file__).parent
SAMPLE = HERE / "../../sample/sample_1024_bpe.model"
DOCUMENTS = [json.loads(line)["text"] for line in gzip.open(HERE / "documents.jsonl.gz", "rt", encoding="utf-8")]

MODELS = {
    # Words as SentencePiece's defaults have them.
    "prefix": dict(byte_fallback=True),
    # White space kept as it is; no dummy prefix.
    "verbatim": dict(byte_fallback=True, add_dummy_prefix=False, remove_extra_whitespaces=False),
    # Runs of unknown characters become one token. Without BOS, which `pg data tokenize` refuses.
    "unknown": dict(byte_fallback=False, bos_id=-1),
    "symbols": dict(
        byte_fallback=True,
        remove_extra_whitespaces=False,
        user_defined_symbols=["the", "  ", "<tag>", "ing ", "ab", "abc", "é"],
    ),
    "suffix": dict(byte_fallback=True, treat_whitespace_as_suffix=True),
    # Pieces reach over spaces.
    "crossing": dict(byte_fallback=False, split_by_whitespace=False),
    # Some pieces are never produced, see `retire`.
    "unused": dict(byte_fallback=True),
    "unigram": dict(model_type="unigram", byte_fallback=True),
}

ODD = (
    "\t \n \r \u200d \uff5e \u00a0 \u3000 \u2581 \u0301 \u0308 \u1100\u1161 \u11a8 \u0e33 \ufeff \u200b \u00ad \u2028 \x01 \x7f \x85 "
    "\ufffd \U0001f468\u200d\U0001f469 \u00bd \ufb01 \uff21 \u212b \u03d3 \ufdfa <s> </s> <unk> <pad> <0x41> \u0385 e\u0301\u0327 "
    "\u0f71\u0f72\u0f80 \u0958 \u2126 \uac00 \U0001d538 \U00010000 \u1e9b\u0323 the ing <tag> abc"
).split(" ") + ["\0", " ", "  ", " the "]


def train(name: str, **settings) -> None:
    model = io.BytesIO()
    SentencePieceTrainer.train(
        **dict(
            dict(
                sentence_iterator=iter(DOCUMENTS[:100]),
                model_writer=model,
                model_type="bpe",
                vocab_size=420,
                normalization_rule_name="identity",
                hard_vocab_limit=False,
                minloglevel=2,
            ),
            **settings,
        )
    )
    (HERE / f"{name}.model").write_bytes(model.getvalue())


def retire(path: pathlib.Path) -> None:
    """Makes a third of the longer pieces unused."""
    model = proto.ModelProto.FromString(path.read_bytes())
    rng = random.Random(3)
    for piece in model.pieces:
        if piece.type == proto.ModelProto.SentencePiece.NORMAL and len(piece.piece) > 1 and rng.random() < 0.33:
            piece.type = proto.ModelProto.SentencePiece.UNUSED
    path.write_bytes(model.SerializeToString())


def strings() -> list[str]:
    rng = random.Random(7)
    out = ["", " ", "a", "   ", "a" * 65, "ab" * 100, " x ", "\u2581" * 3, DOCUMENTS[0][:300], DOCUMENTS[900][:300]]
    letters = "abcdefghijklmnopqrstuvwxyz   ABC0159.,'\"-"
    for _ in range(120):
        oddness = rng.random() * 0.7

        def one() -> str:
            if rng.random() < oddness:
                return rng.choice(ODD)
            if rng.random() < 0.95:
                return rng.choice(letters)
            return chr(rng.choice([rng.randrange(0x20, 0xD800), rng.randrange(0xE000, 0x110000)]))

        out.append("".join(one() for _ in range(rng.choice([1, 2, 4, 8, 20, 60]))))
    return out


def code_points(model: SentencePieceProcessor) -> list[int]:
    """CRC-32 of the ids (uint16, little endian) of every code point alone and inside a word, for each 4,096 code
    points of planes 0, 1 and 2 and of the tags and variation selectors in plane 14."""
    sums = []
    for block in [*range(0x30), 0xE0]:
        crc = 0
        for code in range(block << 12, (block + 1) << 12):
            if not 0xD800 <= code < 0xE000:
                for text in (chr(code), f"wor{chr(code)}ld the"):
                    ids = model.encode(text, out_type=int)
                    crc = zlib.crc32(b"".join(i.to_bytes(2, "little") for i in ids), crc)
        sums.append(crc)
    return sums


def main() -> None:
    cases = {"sentencepiece": sentencepiece.__version__, "strings": strings(), "ids": {}}
    for name, settings in MODELS.items():
        train(name, **settings)
        if name == "unused":
            retire(HERE / "unused.model")
        if name != "unigram":
            model = SentencePieceProcessor(model_file=str(HERE / f"{name}.model"))
            cases["ids"][name] = model.encode(cases["strings"], out_type=int)
    sample = SentencePieceProcessor(model_file=str(SAMPLE))
    cases["ids"]["sample"] = sample.encode(cases["strings"], out_type=int)
    cases["code_points"] = code_points(sample)
    with open(HERE / "cases.json", "w", encoding="utf-8") as file:
        json.dump(cases, file, separators=(",", ":"))
        file.write("\n")


main()
