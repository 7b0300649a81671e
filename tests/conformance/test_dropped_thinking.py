"""A real model whose template strips the thinking of earlier replies: what is kept, dropped, said, and computed."""

import gguf
import pytest

from app.chat import Chat, ChatOptions
from app.events import Notice
from app.local_engine import LocalEngine
from assets import bundled_model_path

THOUGHT = "<think>\nThe person greets me. I greet back.\n</think>\n\nHello to you."
STRIPPED = "(message['content'].split('</think>')[-1] if message['role'] == 'assistant' else message['content'])"


@pytest.fixture(scope="module")
def stripping_model(tmp_path_factory):
    """The bundled model with its template changed so."""
    reader = gguf.GGUFReader(bundled_model_path())
    path = tmp_path_factory.mktemp("model") / "strips.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    for name, field in reader.fields.items():
        value = field.contents()
        if name == "tokenizer.chat_template":
            assert "message['content']" in value
            value = value.replace("message['content']", STRIPPED)
        if name.startswith("GGUF.") or name == "general.architecture":
            continue
        if field.types[0] == gguf.GGUFValueType.ARRAY:
            writer.add_array(name, value)
        else:
            writer.add_key_value(name, value, field.types[0])
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type, raw_shape=tensor.data.shape)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_dropped_thinking(stripping_model):
    heard = []
    chat = Chat(heard.append, ChatOptions(limit=6, seed=7), engine=LocalEngine(), model=stripping_model)
    try:
        chat.start(None)
        chat.load_model()
        chat.send("Hello")
        chat.edit(chat.transcript()[-1].node_id, THOUGHT)  # as if the model had thought
        before = chat._core.place.tokens()
        reply = chat.transcript()[-1]
        assert 10 < reply.thinking_tokens < reply.own_tokens
        chat.send("And now?")
        said = [event.sentence for event in heard if isinstance(event, Notice)]
        assert f"The template drops {reply.thinking_tokens} thinking tokens." in said
        question = chat._core.place.path[-2]
        assert question.keep == len(before) - reply.own_tokens
        tokens = chat._core.place.tokens()
        text = chat.model.tokenizer.decode(tokens, skip_special=False)
        assert "greets" not in text
        assert "Hello to you.<|end|><|user|>And now?<|end|><|assistant|>" in text
        # The session that went back and on is the one that reads the new list from its start, to the bit.
        fresh = chat.model.new_session()
        chat.model.prefill(fresh, tokens)
        assert fresh.logits_digest() == chat._core.bench.session.logits_digest()
        # The next turn extends the list: nothing more to drop.
        chat.send("More?")
        assert chat._core.place.path[-2].keep == len(tokens)
    finally:
        chat.close()
