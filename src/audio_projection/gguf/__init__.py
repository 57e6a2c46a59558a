"""GGUF: the whole pipeline in llama.cpp's file format, on a plain CPU.

`reader` and `writer` are the format itself, `vocabulary`, `llm_file`, `talker_file` and `projector_file` what goes into
it, `llama_cpp_runtime`, `language_model` and `decoder_stack` what runs it, `folder` the files of one voice together.
"""
