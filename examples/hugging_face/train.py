"""Train a small BERT with Hugging Face's Trainer to reverse strings of letters. Nothing is downloaded."""

import random

import numpy as np
import torch
from transformers import BertConfig, BertForTokenClassification, HfArgumentParser, Trainer, TrainingArguments, set_seed

from fnostab.integrations.transformers import StabilityCallback  # 1 of 2 lines added

LETTERS, LENGTH = 10, 12

(args,) = HfArgumentParser(TrainingArguments).parse_args_into_dataclasses()
set_seed(args.seed)
torch.set_num_threads(1)


def strings(n):
    """Random strings of letters; the labels are the reversed string."""
    rows = [random.choices(range(LETTERS), k=LENGTH) for _ in range(n)]
    return [{"input_ids": row, "labels": row[::-1]} for row in rows]


def accuracy(output):
    """Share of correctly predicted letters."""
    return {"accuracy": np.mean(output.predictions.argmax(-1) == output.label_ids)}


config = BertConfig(
    vocab_size=LETTERS,
    num_labels=LETTERS,
    max_position_embeddings=LENGTH,
    hidden_size=64,
    num_hidden_layers=4,
    num_attention_heads=4,
    intermediate_size=128,
    hidden_dropout_prob=0.0,
    attention_probs_dropout_prob=0.0,
)
trainer = Trainer(
    BertForTokenClassification(config),
    args,
    train_dataset=strings(6400),
    eval_dataset=strings(500),
    compute_metrics=accuracy,
)
trainer.add_callback(StabilityCallback(trainer))  # 2 of 2
trainer.train()
