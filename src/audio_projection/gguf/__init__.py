"""GGUF files and llama.cpp inference: the LLM, the projector, the talker and the code predictor on a plain CPU.

`reader` and `writer` are the file format; `llm_file`, `tokenizer`, `talker_file`, `projector_file` and `quantise` turn
checkpoints into files; `llama_cpp_runtime`, `language_model` and `decoder_stack` run them through llama.cpp.
`audio_projection.export` writes all files of a voice into one folder.
"""
