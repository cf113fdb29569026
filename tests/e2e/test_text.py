"""Text: wrong token types of a file, and the text that the tokens of an answer add."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import pathlib
import re
import signal
import subprocess
import unicodedata
from collections.abc import Iterator

import grpc
import gguf
import numpy
import pytest
import sentencepiece
import harness
from harness import Code, _byte_token, pb, request

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6

ENDING: list[subprocess.Popen[bytes]] = []


class Daemon(harness.Daemon):
    """One daemon for each file. The end of one takes longer than its test, so it runs beside the next."""

    def _end(self) -> None:
        self.channel.close()
        self.process.send_signal(signal.SIGTERM)
        ENDING.append(self.process)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._log.name)


@pytest.fixture(scope="module", autouse=True)
def ended() -> Iterator[None]:
    yield
    for process in ENDING:
        assert process.wait(20) == 0


@dataclasses.dataclass
class Vocabulary:
    """The vocabulary of a file whose tokens have the right types."""

    kind: str  # "gpt2" or "llama"
    template: str
    tokens: list[tuple[str, int]]  # text and right type, all but the bytes
    bos: str
    eos: str
    space_prefix: bool = False
    name: str = "tiny"
    keys: dict[str, int] = dataclasses.field(default_factory=dict)  # further ids by key
    scores: list[float] | None = None  # SentencePiece's; None: falling

    def all_tokens(self) -> list[tuple[str, int]]:
        if self.kind == "gpt2":
            return [(_byte_token(b), NORMAL) for b in range(256)] + self.tokens
        # SentencePiece's own three come first.
        return self.tokens[:3] + [(f"<0x{b:02X}>", BYTE) for b in range(256)] + self.tokens[3:]

    def id(self, text: str) -> int:
        return [token for token, _ in self.all_tokens()].index(text)


def write_model(
    path: pathlib.Path,
    vocabulary: Vocabulary,
    *,
    types: list[int] | None = None,
    typed: bool = True,
    eos: int | None = -1,
) -> pathlib.Path:
    """A llama of one layer with random weights. `eos`: -1 stands for the vocabulary's own, None for no key."""
    dim, ffn, heads, kv_heads = 64, 64, 4, 2
    rng = numpy.random.default_rng(5)
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_name(vocabulary.name)
    writer.add_context_length(2048)
    writer.add_embedding_length(dim)
    writer.add_block_count(1)
    writer.add_feed_forward_length(ffn)
    writer.add_head_count(heads)
    writer.add_head_count_kv(kv_heads)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    writer.add_rope_dimension_count(dim // heads)
    tokens = vocabulary.all_tokens()
    writer.add_tokenizer_model(vocabulary.kind)
    writer.add_token_list([text for text, _ in tokens])
    if typed:
        writer.add_token_types(types or [kind for _, kind in tokens])
    if vocabulary.kind == "gpt2":
        writer.add_tokenizer_pre("gpt-2")
        writer.add_token_merges([])
    else:
        writer.add_token_scores(vocabulary.scores or [-float(i) for i in range(len(tokens))])
        writer.add_add_space_prefix(vocabulary.space_prefix)
        if any(kind == UNKNOWN for _, kind in tokens):
            writer.add_unk_token_id(next(i for i, (_, kind) in enumerate(tokens) if kind == UNKNOWN))
    writer.add_vocab_size(len(tokens))
    writer.add_add_bos_token(False)
    writer.add_bos_token_id(vocabulary.id(vocabulary.bos))
    if eos is not None:
        writer.add_eos_token_id(vocabulary.id(vocabulary.eos) if eos < 0 else eos)
    for key, value in vocabulary.keys.items():
        writer.add_uint32(key, value)
    writer.add_chat_template(vocabulary.template)

    def matrix(name: str, rows: int, columns: int, scale: float) -> None:
        writer.add_tensor(name, (rng.standard_normal((rows, columns)) * scale).astype(numpy.float32))

    matrix("token_embd.weight", len(tokens), dim, 1.0)
    writer.add_tensor("output_norm.weight", numpy.ones(dim, numpy.float32))
    matrix("output.weight", len(tokens), dim, 0.3)
    for name, rows, columns in [
        ("attn_q", dim, dim),
        ("attn_k", kv_heads * dim // heads, dim),
        ("attn_v", kv_heads * dim // heads, dim),
        ("attn_output", dim, dim),
        ("ffn_gate", ffn, dim),
        ("ffn_up", ffn, dim),
        ("ffn_down", dim, ffn),
    ]:
        matrix(f"blk.0.{name}.weight", rows, columns, 0.3)
    for name in ("attn_norm", "ffn_norm"):
        writer.add_tensor(f"blk.0.{name}.weight", numpy.ones(dim, numpy.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def tokenize(daemon: Daemon, text: str, **fields: bool) -> list[int]:
    return list(daemon.generation.Tokenize(pb.TokenizeRequest(text=text, **fields), timeout=10).ids)


# --- Token types -----------------------------------------------------------------------------------------------

CHATML = Vocabulary(
    kind="gpt2",
    template="{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}",
    tokens=[("<|endoftext|>", CONTROL), ("<|im_start|>", CONTROL), ("<|im_end|>", CONTROL)]
    + [(text, USER_DEFINED) for text in ("<think>", "</think>", "<tool_call>", "</tool_call>", "<table>")],
    bos="<|endoftext|>",
    eos="<|im_end|>",
)
LLAMA3 = Vocabulary(
    kind="gpt2",
    template="{% set loop_messages = messages %}{% for message in loop_messages %}{% set content = '<|start_header_id|>' + message['role'] "
    "+ '<|end_header_id|>\n\n'+ message['content'] | trim + '<|eot_id|>' %}{% if loop.index0 == 0 %}{% set content = bos_token + content %}"
    "{% endif %}{{ content }}{% endfor %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}",
    tokens=[(t, CONTROL) for t in ("<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")],
    bos="<|begin_of_text|>",
    eos="<|eot_id|>",
)
GEMMA = Vocabulary(
    kind="llama",
    template="{{ bos_token }}{% for message in messages %}{% if (message['role'] == 'assistant') %}{% set role = 'model' %}{% else %}"
    "{% set role = message['role'] %}{% endif %}{{ '<start_of_turn>' + role + '\n' + message['content'] | trim + '<end_of_turn>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}",
    tokens=[("<pad>", CONTROL), ("<eos>", CONTROL), ("<bos>", CONTROL), ("<unk>", UNKNOWN)]
    + [("<start_of_turn>", CONTROL), ("<end_of_turn>", CONTROL)]
    + [(text, USER_DEFINED) for text in ("\n\n", "<table>", "<s>", "</s>", "<start_of_image>")],
    bos="<bos>",
    eos="<end_of_turn>",
    keys={"tokenizer.ggml.padding_token_id": 0},
)
MISTRAL = Vocabulary(
    kind="llama",
    template="{{ bos_token }}{% for message in messages %}{% if message['role'] == 'user' %}{{ '[INST] ' + message['content'] + '[/INST]' }}"
    "{% else %}{{ message['content'] + eos_token}}{% endif %}{% endfor %}{# system_message '[/INST]' #}",
    tokens=[("<unk>", UNKNOWN), ("<s>", CONTROL), ("</s>", CONTROL), ("[INST]", CONTROL), ("[/INST]", CONTROL), ("\u2581", NORMAL)],
    bos="<s>",
    eos="</s>",
)
# Names that no family has: only the template shows that they are markers.
OWN = Vocabulary(
    kind="gpt2",
    template="{% for message in messages %}{{ '<|sp:' ~ 'x|><|opens|>' + message['role'] + '\n' + message['content'] + '<|over|>' }}{% endfor %}"
    "{{ '<|opens|>assistant\n' }}",
    tokens=[("<|text|>", CONTROL), ("<|opens|>", CONTROL), ("<|over|>", CONTROL)],
    bos="<|text|>",
    eos="<|over|>",
)
FAMILIES = {"chatml": CHATML, "llama3": LLAMA3, "gemma": GEMMA, "mistral": MISTRAL, "own": OWN}


def retyped(vocabulary: Vocabulary, kind: int) -> list[int]:
    """Control tokens typed as something else, all others as they should be."""
    return [kind if right in (CONTROL, UNKNOWN) else right for _, right in vocabulary.all_tokens()]


@dataclasses.dataclass
class Answers:
    """Results that a file's types decide: ids of texts and chats, the end of an answer, and the printed text."""

    ids: list[list[int]]
    chat: list[int] | None
    ends: list[tuple[int, str, int]]  # for each token, as the next one
    end_token_ids: list[int]


def ask(daemon: Daemon, vocabulary: Vocabulary) -> Answers:
    specials = [text for text, kind in vocabulary.tokens]
    text = "a" + "b".join(specials) + "c"
    ids = [tokenize(daemon, text), tokenize(daemon, text, parse_special=True)]
    chat = pb.TokenizeRequest()
    chat.chat.messages.add(role="user", content=text)
    chat.chat.messages.add(role="assistant", content="x" + text + "x")
    chat.chat.messages.add(role="user", content="b")
    rendered: list[int] | None
    try:
        rendered = list(daemon.generation.Tokenize(chat, timeout=10).ids)
    except grpc.RpcError as error:
        assert error.code() == Code.UNIMPLEMENTED and vocabulary is OWN
        rendered = None
    ends = []
    for special in specials:
        token = vocabulary.id(special)
        result = daemon.generate(request([5, 6], max_tokens=3, logit_bias={token: 100.0})).check_ok()
        assert result.final is not None
        ends.append((result.final.finish_reason, result.text, len(result.ids)))
    return Answers(ids, rendered, ends, list(daemon.model().end_token_ids))


@pytest.fixture(scope="module")
def right(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Answers]:
    """The answers of the same files with the right types."""
    folder = tmp_path_factory.mktemp("right")
    answers = {}
    for name, vocabulary in FAMILIES.items():
        with Daemon(write_model(folder / f"{name}.gguf", vocabulary)) as daemon:
            answers[name] = ask(daemon, vocabulary)
            assert "control tokens" not in daemon.log(), "a warning for a file that is right"
    return answers


def check_safe(answers: Answers, vocabulary: Vocabulary) -> None:
    """No control token comes from a message, each end token ends at once without text, and other tokens are printed."""
    for (text, kind), (reason, printed, count) in zip(vocabulary.tokens, answers.ends, strict=True):
        if vocabulary.id(text) in answers.end_token_ids:
            assert (reason, printed, count) == (pb.FINISH_REASON_EOS, "", 1), text
        elif kind in (CONTROL, UNKNOWN):
            assert printed == "", text
        elif kind == USER_DEFINED:
            assert printed == text * 3, text
    assert vocabulary.id(vocabulary.eos) in answers.end_token_ids


def test_right_types_are_believed(right: dict[str, Answers]) -> None:
    for name, vocabulary in FAMILIES.items():
        check_safe(right[name], vocabulary)
    # The tags of HTML in Gemma's vocabulary are text, though other families end their texts with one of them.
    assert GEMMA.id("</s>") not in right["gemma"].end_token_ids
    assert GEMMA.id("</s>") in right["gemma"].ids[0]


WRONG = [("chatml", kind) for kind in (USER_DEFINED, NORMAL, UNUSED, BYTE)]
WRONG += [("llama3", USER_DEFINED), ("gemma", NORMAL), ("gemma", BYTE), ("mistral", USER_DEFINED), ("own", USER_DEFINED), ("own", NORMAL)]


@pytest.mark.parametrize(("name", "kind"), WRONG)
def test_wrong_types_are_seen_through(right: dict[str, Answers], tmp_path: pathlib.Path, name: str, kind: int) -> None:
    vocabulary = FAMILIES[name]
    with Daemon(write_model(tmp_path / "wrong.gguf", vocabulary, types=retyped(vocabulary, kind))) as daemon:
        answers = ask(daemon, vocabulary)
        (line,) = [line for line in daemon.log().splitlines() if "not typed as control tokens" in line]
        assert vocabulary.eos in line
    assert answers == right[name]


def test_absent_types(right: dict[str, Answers], tmp_path: pathlib.Path) -> None:
    for name in ("chatml", "mistral"):
        vocabulary = dataclasses.replace(FAMILIES[name], tokens=[t for t in FAMILIES[name].tokens if t[0] != "<table>"])
        with Daemon(write_model(tmp_path / f"{name}-typed.gguf", vocabulary)) as daemon:
            expected = ask(daemon, vocabulary)
        with Daemon(write_model(tmp_path / f"{name}.gguf", vocabulary, typed=False)) as daemon:
            answers = ask(daemon, vocabulary)
            assert vocabulary.eos in daemon.log()
        # Without a type a mark that no template names is a text that nothing makes.
        if name == "chatml":
            cut = len(vocabulary.tokens) - 4
            assert answers.ends[:cut] == expected.ends[:cut] and answers.end_token_ids == expected.end_token_ids
            assert answers.ids == expected.ids and answers.chat == expected.chat
        else:
            assert answers == expected


@pytest.mark.parametrize("eos", [None, 65, CHATML.id("<|endoftext|>")], ids=["absent", "a letter", "another"])
@pytest.mark.parametrize("kind", [CONTROL, USER_DEFINED], ids=["typed", "mistyped"])
def test_end_token_that_the_file_names_wrongly(right: dict[str, Answers], tmp_path: pathlib.Path, eos: int | None, kind: int) -> None:
    path = write_model(tmp_path / "eos.gguf", CHATML, types=retyped(CHATML, kind), eos=eos)
    with Daemon(path) as daemon:
        assert ask(daemon, CHATML) == right["chatml"]
        letter = daemon.generate(request([5, 6], max_tokens=3, logit_bias={65: 100.0})).check_ok()
        assert letter.text == chr(65) * 3


def test_end_token_that_the_template_alone_names(right: dict[str, Answers], tmp_path: pathlib.Path) -> None:
    for name, vocabulary in (("own", OWN), ("gemma", GEMMA), ("mistral", MISTRAL)):
        path = write_model(tmp_path / f"{name}.gguf", vocabulary, types=retyped(vocabulary, USER_DEFINED), eos=None)
        with Daemon(path) as daemon:
            assert ask(daemon, vocabulary) == right[name]


# --- Text behind a prompt --------------------------------------------------------------------------------------

SPM_TEMPLATE = MISTRAL.template


@pytest.fixture(scope="module")
def pieces(tmp_path_factory: pytest.TempPathFactory) -> sentencepiece.SentencePieceProcessor:
    """A SentencePiece model with a blank in front of a text and byte tokens, as Llama 2 has them."""
    words = "a b ab ba the then river rivers and sand hand on one stone \u00e9t\u00e9 caf\u00e9".split()
    rng = numpy.random.default_rng(3)
    folder = tmp_path_factory.mktemp("pieces")
    corpus = folder / "corpus.txt"
    corpus.write_text("\n".join(" ".join(rng.choice(words, 12)) for _ in range(400)))
    sentencepiece.SentencePieceTrainer.train(
        input=str(corpus), model_prefix=str(folder / "spm"), model_type="bpe", vocab_size=320, byte_fallback=True, minloglevel=2
    )
    return sentencepiece.SentencePieceProcessor(model_file=str(folder / "spm.model"))


@pytest.fixture(scope="module")
def spm(pieces: sentencepiece.SentencePieceProcessor, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    count = pieces.get_piece_size()
    tokens = [
        (pieces.id_to_piece(i), UNKNOWN if pieces.is_unknown(i) else CONTROL if pieces.is_control(i) else NORMAL)
        for i in range(count)
        if not pieces.is_byte(i)
    ]
    scores = [pieces.get_score(i) for i in range(count)]
    vocabulary = Vocabulary("llama", SPM_TEMPLATE, tokens, "<s>", "</s>", space_prefix=True, scores=scores)
    assert [text for text, _ in vocabulary.all_tokens()] == [pieces.id_to_piece(i) for i in range(count)]
    with Daemon(write_model(tmp_path_factory.mktemp("spm") / "spm.gguf", vocabulary)) as daemon:
        yield daemon


def decoded(pieces: sentencepiece.SentencePieceProcessor, ids: list[int]) -> str:
    if [i for i in ids if not pieces.is_control(i)][:1] == [pieces.piece_to_id("\u2581")]:
        # SentencePiece drops the blanks of all pieces up to the first text, and so loses some; transformers and the daemon drop one.
        return str(pieces.decode([pieces.piece_to_id("a"), *ids])[1:]).removeprefix(" ")
    return str(pieces.decode(ids))


def behind(pieces: sentencepiece.SentencePieceProcessor, prompt: list[int], ids: list[int]) -> str:
    """The text that SentencePiece's own decoder has for both, after its text for the prompt alone."""
    before, both = decoded(pieces, prompt), decoded(pieces, prompt + ids)
    if not both.startswith(before):  # U+FFFD of an open character, which the answer completes
        before = before.rstrip("\ufffd")
    assert both.startswith(before)
    return both[len(before) :]


def joined(text: str) -> str:
    """SentencePiece writes U+FFFD for each broken byte, the daemon one for each maximal subpart, as Unicode recommends."""
    return re.sub("\ufffd+", "\ufffd", text)


def prompts(pieces: sentencepiece.SentencePieceProcessor) -> list[list[int]]:
    texts = ["a", "the river and", "stone ", "caf\u00e9", "\u20ac"]
    bytes_of_euro = [pieces.piece_to_id(f"<0x{b:02X}>") for b in (0xE2, 0x82, 0xAC)]
    ids = [pieces.encode(text) for text in texts]
    return [*ids, [1], [1, *ids[0]], [*ids[0], 1], [*ids[0], 2, 1], bytes_of_euro[:2], bytes_of_euro[:1]]


def test_text_behind_a_prompt_is_what_sentencepiece_adds(spm: Daemon, pieces: sentencepiece.SentencePieceProcessor) -> None:
    never = {pieces.unk_id(): -100.0}
    blanks = 0
    for prompt in prompts(pieces):
        for seed in range(6):
            req = request(prompt, max_tokens=12, temperature=5.0, seed=seed, ignore_eos=True, logit_bias=never)
            result = spm.generate(req).check_ok()
            expected = behind(pieces, prompt, result.ids)
            # A broken character across the border adds as many U+FFFD as SentencePiece writes for it.
            assert joined(result.text).lstrip("\ufffd") == joined(expected).lstrip("\ufffd"), (prompt, result.ids)
            blanks += result.text.startswith(" ")
    assert blanks > 5


def test_every_first_token_behind_every_kind_of_prompt(spm: Daemon, pieces: sentencepiece.SentencePieceProcessor) -> None:
    firsts = [pieces.piece_to_id(text) for text in ("\u2581", "\u2581a", "a", "<0xAC>", "<0x82>", "</s>", "\u2581the")]
    for prompt in prompts(pieces):
        for first in firsts:
            req = request(prompt, max_tokens=2, ignore_eos=True, logit_bias={first: 100.0})
            result = spm.generate(req).check_ok()
            assert result.ids == [first, first]
            assert joined(result.text) == joined(behind(pieces, prompt, [first, first])), (prompt, first)


def test_blank_behind_texts_and_chats(spm: Daemon, pieces: sentencepiece.SentencePieceProcessor) -> None:
    b = pieces.piece_to_id("\u2581b")
    bias = {b: 100.0}
    assert spm.generate(request("a", max_tokens=2, logit_bias=bias)).check_ok().text == " b b"
    special = request([1], max_tokens=1, logit_bias=bias)
    assert spm.generate(special).check_ok().text == "b"
    special.output.include_special_tokens = True
    assert spm.generate(special).check_ok().text == " b"  # behind "<s>"
    for messages in ([("user", "a")], [("user", "a"), ("assistant", "on")]):
        req = request(max_tokens=2, logit_bias=bias)
        for role, content in messages:
            req.chat.messages.add(role=role, content=content)
        req.chat.continue_final_message = len(messages) > 1
        assert spm.generate(req).check_ok().text == " b b"
    # Stop strings see the answer alone, its blank included.
    stopped = spm.generate(request("a", max_tokens=4, logit_bias=bias, stop=[" b b"])).check_ok()
    assert (stopped.text, stopped.final.stop_matched) == ("", " b b")  # type: ignore[union-attr]
    assert spm.generate(request("a", max_tokens=2, logit_bias=bias, stop=["a b"])).check_ok().text == " b b"
    # Tokens are raw pieces; Detokenize takes its ids as the begin of a text.
    scored = request([1, *pieces.encode("a")], max_tokens=1, logit_bias=bias)
    scored.output.prompt_logprobs = 0
    result = spm.generate(scored).check_ok()
    assert [token.piece for token in result.prompt][-1] == b" a" and result.tokens[0].piece == b" b"
    assert spm.generation.Detokenize(pb.DetokenizeRequest(ids=[*pieces.encode("a"), b]), timeout=10).text == "a b"


def test_blank_behind_a_prompt_on_the_command_line(spm: Daemon, pieces: sentencepiece.SentencePieceProcessor) -> None:
    command = [str(harness.BIN / "mnemo"), "generate", "--address", spm.address, "--max-tokens", "2", "--temperature", "0"]
    command += ["--logit-bias", f"{pieces.piece_to_id(chr(0x2581) + 'b')}=100", "a"]
    out = subprocess.run(command, capture_output=True, check=True, timeout=30).stdout
    assert out.decode().rstrip("\n") == " b b"


# --- Bounds of what a call makes -------------------------------------------------------------------------------

MIB = 1 << 20
MESSAGE_BYTES = 16 * MIB  # server.max_message_bytes by default


def memory(daemon: Daemon, field: str) -> int:
    """VmRSS, or VmHWM: the largest since reset_peak."""
    for line in pathlib.Path(f"/proc/{daemon.process.pid}/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    raise AssertionError(field)


@contextlib.contextmanager
def memory_bounded(daemon: Daemon, most: int) -> Iterator[None]:
    """Memory never grows by much, and soon returns to its former size."""
    before = memory(daemon, "VmRSS")
    pathlib.Path(f"/proc/{daemon.process.pid}/clear_refs").write_text("5")
    yield
    peak = memory(daemon, "VmHWM") - before
    assert peak < most, f"{peak / MIB:.0f} MiB more than before"
    harness.wait_for("memory given back", lambda: memory(daemon, "VmRSS") - before < 24 * MIB, timeout=10)


@pytest.fixture(scope="module")
def bytes_model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    # The figures of a model, so that Admin.Energy has an answer.
    settings = {"energy.model": "[cpu0 idle=10 busy=50]"}
    with Daemon(write_model(tmp_path_factory.mktemp("bytes") / "bytes.gguf", CHATML), settings=settings) as daemon:
        daemon.generation.Tokenize(pb.TokenizeRequest(text="x" * 100000), timeout=30)  # threads and arenas are there
        yield daemon


def too_large(call: object) -> str:
    with pytest.raises(grpc.RpcError) as error:
        call()  # type: ignore[operator]
    assert error.value.code() == Code.INVALID_ARGUMENT, error.value
    return str(error.value.details())


def chat_of(text: str, messages: int = 1) -> pb.TokenizeRequest:
    chat = pb.TokenizeRequest()
    for _ in range(messages):
        chat.chat.messages.add(role="user", content=text)
    return chat


LONG = {
    "one letter": "a" * (MESSAGE_BYTES - 64),
    "words": "some words and more, " * (MESSAGE_BYTES // 21 - 4),
    "blanks": " " * (MESSAGE_BYTES - 64),
    "marks": "a\u0323\u0308" * (MESSAGE_BYTES // 5 - 16),
}


@pytest.mark.parametrize("kind", LONG)
def test_tokenize_is_bounded(bytes_model: Daemon, kind: str) -> None:
    with memory_bounded(bytes_model, 6 * MESSAGE_BYTES):
        details = too_large(lambda: bytes_model.generation.Tokenize(pb.TokenizeRequest(text=LONG[kind]), timeout=60))
        assert details.startswith("text:") and "server.max_message_bytes" in details and str(MESSAGE_BYTES) in details


def test_tokenize_of_chats_is_bounded(bytes_model: Daemon) -> None:
    for messages in (1, 8, 100000):
        chat = chat_of("a" * ((MESSAGE_BYTES - 4096) // messages - 16), messages)
        with memory_bounded(bytes_model, 12 * MESSAGE_BYTES):
            details = too_large(lambda chat=chat: bytes_model.generation.Tokenize(chat, timeout=60))
            assert details.startswith("chat:") and "server.max_message_bytes" in details


def test_tokenize_up_to_its_bound(bytes_model: Daemon) -> None:
    """Just below the bound the answer is complete, and equal to the message that protobuf makes."""
    count = MESSAGE_BYTES // 4 - 1  # a byte for the id, three for the piece; five in front of the ids
    with memory_bounded(bytes_model, 8 * MESSAGE_BYTES):
        call = bytes_model.channel.unary_unary("/mnemo.v1.Generation/Tokenize", pb.TokenizeRequest.SerializeToString, lambda b: b)
        raw = call(pb.TokenizeRequest(text="a" * (count - 1)), timeout=60)
        assert MESSAGE_BYTES - 12 < len(raw) <= MESSAGE_BYTES
        reply = pb.TokenizeResponse.FromString(raw)
        assert list(reply.ids) == [97] * (count - 1) and reply.pieces[-1] == b"a"
        assert pb.TokenizeResponse(ids=reply.ids, pieces=reply.pieces).SerializeToString() == raw
    assert "max_message_bytes" in too_large(
        lambda: bytes_model.generation.Tokenize(pb.TokenizeRequest(text="a" * (count + 8)), timeout=60)
    )
    assert bytes_model.generation.Tokenize(pb.TokenizeRequest(text=""), timeout=10) == pb.TokenizeResponse()


def test_sentencepiece_is_bounded(spm: Daemon) -> None:
    for text in (LONG["one letter"], LONG["words"], "\u4e2d" * (MESSAGE_BYTES // 3 - 16)):
        with memory_bounded(spm, 8 * MESSAGE_BYTES):
            details = too_large(lambda text=text: spm.generation.Tokenize(pb.TokenizeRequest(text=text), timeout=60))
            assert "server.max_message_bytes" in details


def test_prompts_are_bounded(bytes_model: Daemon, spm: Daemon) -> None:
    for daemon in (bytes_model, spm):
        for field in ("prompt", "chat"):
            req = request(max_tokens=1)
            text = LONG["one letter"][: -4096]
            if field == "chat":
                req.chat.messages.add(role="user", content=text)
            else:
                req.prompt = text
            with memory_bounded(daemon, 4 * MESSAGE_BYTES):
                result = daemon.generate(req)
                assert result.code == Code.INVALID_ARGUMENT and "context" in result.details


def test_prompt_tokens_wait_within_the_bound_of_slow_readers(tmp_path: pathlib.Path) -> None:
    path = write_model(tmp_path / "slow.gguf", CHATML)
    with Daemon(path, settings={"server.slow_reader_max_tokens": 100}) as daemon:
        options = [("grpc.http2.lookahead_bytes", 1024), ("grpc.http2.bdp_probe", 0)]
        with grpc.insecure_channel(daemon.address, options=options) as channel:
            req = request([97] * 2000, max_tokens=1)
            req.output.prompt_logprobs = 20
            call = harness.generation_pb2_grpc.GenerationStub(channel).Generate(req)
            harness.wait_for("the call ends", lambda: "slow_reader_max_tokens" in daemon.log(), timeout=20)
            assert harness.collect(call).code == Code.CANCELLED


# Each call of the public services, with the smallest request of the largest answer, and the row of docs/API.md.
LARGEST = {
    "Generate": lambda d: _generate(d),
    "Tokenize": lambda d: d.generation.Tokenize(pb.TokenizeRequest(text="\x01" * (MESSAGE_BYTES // 5 - 64)), timeout=60),
    "Detokenize": lambda d: d.generation.Detokenize(pb.DetokenizeRequest(ids=[CHATML.id("<|endoftext|>")] * (MESSAGE_BYTES // 16)), timeout=60),
    "ListModels": lambda d: d.generation.ListModels(pb.ListModelsRequest(), timeout=10),
    "EndSession": lambda d: d.generation.EndSession(pb.EndSessionRequest(session_id="s" * 64), timeout=10),
    "Status": lambda d: d.admin.Status(harness.admin_pb2.StatusRequest(), timeout=10),
    "Energy": lambda d: d.admin.Energy(harness.admin_pb2.EnergyRequest(), timeout=10),
    "Resume": lambda d: d.admin.Resume(harness.admin_pb2.ResumeRequest(), timeout=10),
    "Check": lambda d: d.health.Check(harness.health_pb2.HealthCheckRequest(), timeout=10),
    "ServerReflectionInfo": lambda d: _reflect(d),
    "Drain": lambda d: d.admin.Drain(harness.admin_pb2.DrainRequest(), timeout=20),
}
SMALL = {"ListModels", "EndSession", "Status", "Energy", "Resume", "Check", "Drain"}


def _generate(daemon: Daemon) -> pb.GenerateResponse:
    req = request([97] * 2000, max_tokens=48)
    req.output.prompt_logprobs = req.output.logprobs = 20
    sizes = [message.ByteSize() for message in daemon.generation.Generate(req, timeout=60)]
    assert max(sizes) <= MIB and sum(sizes) < 2048 * 21 * 64, "a token and its alternatives take at most 64 bytes each"
    return pb.GenerateResponse()


def _reflect(daemon: Daemon, count: int = 20) -> object:
    from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

    stub = reflection_pb2_grpc.ServerReflectionStub(daemon.channel)
    ask = reflection_pb2.ServerReflectionRequest(file_containing_symbol="mnemo.v1.Generation")
    replies = list(stub.ServerReflectionInfo(iter([ask] * count), timeout=60))
    assert len(replies) == count
    return max(replies, key=lambda reply: reply.ByteSize())


def test_reflection_is_bounded(tmp_path: pathlib.Path) -> None:
    with Daemon(write_model(tmp_path / "small.gguf", CHATML), settings={"server.max_message_bytes": 65536}) as daemon:
        _reflect(daemon, 5)
        with pytest.raises(grpc.RpcError) as error:
            _reflect(daemon, 500)
        assert error.value.code() == Code.RESOURCE_EXHAUSTED
        # Answers of our own have room up to their bound.
        text = "a" * (65536 // 4 - 4)
        assert len(daemon.generation.Tokenize(pb.TokenizeRequest(text=text), timeout=10).ids) == len(text)
        # Its own answers at the bound of Detokenize.
        ids = [97] * 21000
        assert daemon.generation.Detokenize(pb.DetokenizeRequest(ids=ids), timeout=10).text == "a" * 21000


def test_every_call_has_a_bound_in_the_documents(bytes_model: Daemon) -> None:
    text = (harness.ROOT / "docs" / "API.md").read_text()
    rows = {
        name
        for line in text[text.index("## Bounds") :].splitlines()
        if line.startswith("| `")
        for name in re.findall(r"`(\w+)`", line.split("|")[1])
    }
    services = [pb.DESCRIPTOR.services_by_name["Generation"], harness.admin_pb2.DESCRIPTOR.services_by_name["Admin"]]
    calls = {method.name for service in services for method in service.methods}
    assert calls <= set(LARGEST) and set(LARGEST) <= rows, "a call without a case, or without a row"
    for name, call in LARGEST.items():
        with memory_bounded(bytes_model, 8 * MESSAGE_BYTES):
            reply = call(bytes_model)
            assert reply.ByteSize() <= (16384 if name in SMALL else MESSAGE_BYTES), name


# --- Names of models -------------------------------------------------------------------------------------------

NAMES = ["Mod\u00e8le fran\u00e7ais", "\u901a\u4e49\u5343\u95ee 2.5", "\U0001f999 a\u0301", "it's \"q\" \\ {} %s", "x" * 256, "\u00e9" * 128]
# A name, or its bytes, and the message's words about it.
BAD_NAMES = {
    "line feed": (b"a\nb", "control character at byte 1"),
    "zero": (b"a\0b", "control character at byte 1"),
    "delete": (b"\x7f", "control character at byte 0"),
    "next line": ("a\u0085".encode(), "control character at byte 1"),
    "right to left": ("\u202egnp".encode(), "control character at byte 0"),
    "257 bytes": (b"x" * 257, "257 bytes"),
    "no UTF-8": (b"a\xff\xfe", "no UTF-8 at byte 1"),
    "surrogate": (b"\xed\xa0\x80", "no UTF-8 at byte 0"),
}


def check_name(daemon: Daemon, name: str) -> None:
    assert daemon.model().name == name
    for model in (name, ""):
        req = request("a", max_tokens=1)
        req.model = model
        result = daemon.generate(req).check_ok()
        assert result.started is not None and result.started.model == name
    assert daemon.generation.Tokenize(pb.TokenizeRequest(model=name, text="a"), timeout=10).ids == [97]
    assert daemon.generation.Detokenize(pb.DetokenizeRequest(model=name, ids=[97]), timeout=10).text == "a"
    with pytest.raises(grpc.RpcError) as error:
        daemon.generation.Tokenize(pb.TokenizeRequest(model=name + "\u00e8", text="a"), timeout=10)
    assert error.value.code() == Code.NOT_FOUND and name[:16] in str(error.value.details())
    label = name.replace("\\", "\\\\").replace('"', '\\"')
    assert f'model="{label}"' in daemon.metrics()
    assert f"serving {name} (" in daemon.log()
    mnemo, server = str(harness.BIN / "mnemo"), ["--address", daemon.address]
    shown = subprocess.run([mnemo, "models", *server], capture_output=True, check=True, timeout=30).stdout.decode()
    assert name + " *" in shown
    listed = json.loads(subprocess.run([mnemo, "models", "--json", *server], capture_output=True, check=True, timeout=30).stdout)
    assert [model["name"] for model in listed["models"]] == [name]
    command = [mnemo, "generate", *server, "--model", name, "-n", "1", "a"]
    assert subprocess.run(command, capture_output=True, timeout=30).returncode == 0


@pytest.mark.parametrize("name", NAMES, ids=range(len(NAMES)))
def test_name_of_the_file(tmp_path: pathlib.Path, name: str) -> None:
    with Daemon(write_model(tmp_path / "named.gguf", dataclasses.replace(CHATML, name=name))) as daemon:
        check_name(daemon, name)


def test_name_of_the_configuration(tmp_path: pathlib.Path) -> None:
    path = write_model(tmp_path / "named.gguf", CHATML)
    for name in NAMES[:4]:
        with Daemon(path, settings={"model.name": json.dumps(name, ensure_ascii=False), "log.format": "text"}) as daemon:
            check_name(daemon, name)


def test_name_in_json_logs(tmp_path: pathlib.Path) -> None:
    name = NAMES[3] + NAMES[1]
    path = write_model(tmp_path / "named.gguf", dataclasses.replace(CHATML, name=name))
    with Daemon(path, settings={"log.format": "json"}) as daemon:
        lines = [json.loads(line) for line in daemon.log().splitlines()]
        assert any(f"serving {name} (" in str(value) for line in lines for value in line.values())


def refused(path: pathlib.Path, *arguments: str) -> str:
    command = [str(harness.BIN / "mnemod"), "--listen", "127.0.0.1:0", "--metrics-listen", "", "--model", str(path), *arguments]
    ended = subprocess.run(command, capture_output=True, timeout=30, stdin=subprocess.DEVNULL)
    assert ended.returncode == 1, ended
    return ended.stderr.decode()


@pytest.mark.parametrize("kind", BAD_NAMES)
def test_bad_name_of_the_file_is_refused_by_its_key(tmp_path: pathlib.Path, kind: str) -> None:
    name, problem = BAD_NAMES[kind]
    stand_in = "N" * len(name)
    path = write_model(tmp_path / "named.gguf", dataclasses.replace(CHATML, name=stand_in))
    whole = path.read_bytes()
    assert whole.count(stand_in.encode()) == 1 or len(name) < 4
    at = whole.index(stand_in.encode(), whole.index(b"general.name"))
    path.write_bytes(whole[:at] + name + whole[at + len(name) :])
    message = refused(path)
    assert "general.name" in message and problem in message and "model.name" in message
    assert all(unicodedata.category(c) != "Cc" or c == "\n" for c in message), "a control character in the log"
    with Daemon(path, settings={"model.name": "other"}) as daemon:
        assert daemon.model().name == "other"


def test_bad_name_of_the_configuration_is_refused_by_its_key(tmp_path: pathlib.Path) -> None:
    path = write_model(tmp_path / "named.gguf", CHATML)
    for name in ("a\nb", "\x7f", "a\u0085", "\u202egnp", "x" * 257):
        message = refused(path, "--set", f"model.name={json.dumps(name)}")
        assert "model.name" in message and "256" in message, message


def test_file_without_a_name_has_its_stem(tmp_path: pathlib.Path) -> None:
    stem = "mod\u00e8le \u901a"
    path = write_model(tmp_path / f"{stem}.gguf", dataclasses.replace(CHATML, name=""))
    with Daemon(path) as daemon:
        assert daemon.model().name == stem
