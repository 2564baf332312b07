"""Train a small transformer to predict the next character of a text."""

import math
from pathlib import Path

import torch
from lightning import LightningDataModule, LightningModule
from lightning.pytorch.cli import LightningCLI
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

torch.set_num_threads(1)


class Block(nn.Module):
    """Pre-norm transformer block: causal attention and a perceptron, each with a skip connection."""

    def __init__(self, width: int, heads: int, qk_norm: bool):
        super().__init__()
        self.heads = heads
        self.norm_1, self.norm_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width, bias=False), nn.Linear(width, width, bias=False)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        head = width // heads
        self.norm_q, self.norm_k = (nn.LayerNorm(head) if qk_norm else nn.Identity() for _ in range(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Apply the block: (B, T, width) -> the same."""
        q, k, v = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in self.qkv(self.norm_1(x)).chunk(3, -1)
        )
        y = functional.scaled_dot_product_attention(self.norm_q(q), self.norm_k(k), v, is_causal=True)
        x = x + self.out(y.transpose(1, 2).flatten(-2))
        return x + self.mlp(self.norm_2(x))


class LanguageModel(LightningModule):
    """Character-level transformer.

    Args:
        characters: number of different characters.
        width: size of the embeddings.
        layers: number of blocks.
        heads: attention heads per block.
        context: maximum number of characters in a sequence.
        learning_rate: peak learning rate.
        warmup_steps: steps of linear learning-rate warm-up.
        qk_norm: normalise queries and keys of every head (Dehghani et al. 2023).
        z_loss: weight of the squared log of the softmax normaliser (Chowdhery et al. 2022).
    """

    def __init__(
        self,
        characters: int,
        width: int = 64,
        layers: int = 2,
        heads: int = 4,
        context: int = 64,
        learning_rate: float = 3e-3,
        warmup_steps: int = 0,
        qk_norm: bool = False,
        z_loss: float = 0.0,
    ):
        super().__init__()
        self.save_hyperparameters()
        self.token, self.place = nn.Embedding(characters, width), nn.Embedding(context, width)
        self.blocks = nn.Sequential(*(Block(width, heads, qk_norm) for _ in range(layers)))
        self.head = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, characters))
        for module in self.modules():
            if isinstance(module, nn.Embedding):
                nn.init.normal_(module.weight, std=0.02)

    def forward(self, text: torch.Tensor) -> torch.Tensor:
        """Compute logits (B, T, characters) from characters (B, T)."""
        return self.head(self.blocks(self.token(text) + self.place.weight[: text.shape[1]]))

    def training_step(self, batch, batch_index):
        logits = self(batch[0][:, :-1]).flatten(0, 1)
        loss = functional.cross_entropy(logits, batch[0][:, 1:].flatten())
        self.log("train/loss", loss)
        return loss + self.hparams.z_loss * logits.logsumexp(-1).square().mean()

    def validation_step(self, batch, batch_index):
        logits = self(batch[0][:, :-1]).flatten(0, 1)
        self.log("val/loss", functional.cross_entropy(logits, batch[0][:, 1:].flatten()), prog_bar=True)

    def configure_optimizers(self):
        optimizer = torch.optim.AdamW(self.parameters(), self.hparams.learning_rate, betas=(0.9, 0.95))
        steps, warmup = self.trainer.estimated_stepping_batches, self.hparams.warmup_steps

        def factor(step):  # linear warm-up, then a cosine down to a tenth
            if step < warmup:
                return (step + 1) / warmup
            return 0.55 + 0.45 * math.cos(math.pi * (step - warmup) / max(steps - warmup, 1))

        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


class Characters(LightningDataModule):
    """Sequences of ``context`` characters and the next one from a text, the last tenth of which is held out."""

    def __init__(self, path: Path = Path("shakespeare.txt"), context: int = 64, batch_size: int = 32):
        super().__init__()
        self.save_hyperparameters()
        text = path.read_text()
        self.alphabet = sorted(set(text))
        codes = {character: i for i, character in enumerate(self.alphabet)}
        pieces = torch.tensor([codes[character] for character in text]).unfold(0, context + 1, context)
        cut = int(0.9 * len(pieces))
        self.train, self.held_out = TensorDataset(pieces[:cut]), TensorDataset(pieces[cut:])

    def train_dataloader(self):
        return DataLoader(self.train, self.hparams.batch_size, shuffle=True, drop_last=True)

    def val_dataloader(self):
        return DataLoader(self.held_out, 4 * self.hparams.batch_size)


class CLI(LightningCLI):
    """Lightning's command line, with the context and number of characters linked to those of the data."""

    def add_arguments_to_parser(self, parser):
        parser.link_arguments("data.context", "model.context")
        parser.link_arguments("data.alphabet", "model.characters", compute_fn=len, apply_on="instantiate")


if __name__ == "__main__":
    CLI(LanguageModel, Characters)
