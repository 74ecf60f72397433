#!/usr/bin/env bash
# Makes .venv-lmms ready: Foveate and lmms-eval.
#
#   LMMS_EVAL=lmms-eval==0.7.3   another release
#
# timm cannot be imported without torchvision, and accelerate imports it where it is there. decord is
# imported at the top of some of the models that lmms-eval brings along.
exec "$(dirname "${BASH_SOURCE[0]}")/beside.sh" lmms "torchvision timm" \
    "${LMMS_EVAL:-lmms-eval==0.7.3}" decord
