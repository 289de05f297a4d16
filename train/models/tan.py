"""TAN, the neck of NanoDet-t: all levels attend to one another on the map of the middle one.

Source: RangiLyu/nanodet, nanodet/model/fpn/tan.py and nanodet/model/module/transformer.py; attribute names are theirs.
The attention is written out, so that it is exported as plain products and one softmax.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from train.models.layers import ConvNormAct, leaky_relu, relu
from train.models.pan import Lateral, resize_to

HEADS = 8  # of the attention
EXPANSION = 4  # hidden units of the perceptron in those of a token
DROPOUT = 0.1  # in training
STRIDE = 16  # of the map that attends
INIT_STD = 0.02


class LayerNorm(nn.LayerNorm):
    """Layer norm that is computed in float32 whatever its input: a sum of squares may not fit into FP16."""

    def forward(self, x: Tensor) -> Tensor:
        """``[..., C]`` -> the same in the dtype of ``x``."""
        return F.layer_norm(x.float(), self.normalized_shape, self.weight.float(), self.bias.float(), self.eps).to(x)


class Attention(nn.Module):
    """Multi-head self-attention. Keys are those of :class:`torch.nn.MultiheadAttention`."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.in_proj_weight = nn.Parameter(torch.empty(3 * channels, channels))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * channels))
        self.out_proj = nn.Linear(channels, channels)
        nn.init.xavier_uniform_(self.in_proj_weight)

    def forward(self, x: Tensor) -> Tensor:
        """``[N, L, C]``, and the same."""
        length, channels = x.shape[1:]
        width = channels // HEADS
        joint = F.linear(x, self.in_proj_weight, self.in_proj_bias)
        query, key, value = joint.reshape(-1, length, 3, HEADS, width).permute(2, 0, 3, 1, 4).unbind(0)
        shares = ((query * width**-0.5) @ key.transpose(-2, -1)).float().softmax(dim=-1).to(x)
        mixed = F.dropout(shares, DROPOUT, self.training) @ value
        return self.out_proj(mixed.transpose(1, 2).reshape(-1, length, channels))


class Perceptron(nn.Module):
    """Two layers for each token. Keys: ``fc1``, ``fc2``."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(channels, EXPANSION * channels)
        self.act = leaky_relu()
        self.fc2 = nn.Linear(EXPANSION * channels, channels)
        self.drop = nn.Dropout(DROPOUT)

    def forward(self, x: Tensor) -> Tensor:
        """``[N, L, C]``, and the same."""
        return self.drop(self.fc2(self.drop(self.act(self.fc1(x)))))


class Encoder(nn.Module):
    """Attention and perceptron, each on what is normalized before and added to what was."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm1 = LayerNorm(channels)
        self.attn = Attention(channels)
        self.norm2 = LayerNorm(channels)
        self.mlp = Perceptron(channels)

    def forward(self, x: Tensor) -> Tensor:
        """``[N, L, C]``, and the same."""
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class Transformer(nn.Module):
    """A map turned into tokens, encoded, and back."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = Lateral(in_channels, out_channels)
        self.act = relu()
        self.encoders = nn.Sequential(Encoder(out_channels))

    def forward(self, x: Tensor, positions: Tensor) -> Tensor:
        """``[N, in_channels, H, W]`` and an embedding ``[H * W, 1, C]`` -> ``[N, C, H, W]``."""
        height, width = x.shape[-2:]
        tokens = self.act(self.conv(x)).flatten(2).transpose(1, 2) + positions.transpose(0, 1)
        return self.encoders(tokens).transpose(1, 2).reshape(-1, positions.shape[-1], height, width)


class TAN(nn.Module):
    """Every level gets the resized middle map added, in which all of them attend to one another.

    Args:
        in_channels: of the backbone's maps at strides 8, 16 and 32.
        out_channels: of every output map, a multiple of ``HEADS``.
        attention_hw: height and width of the middle map; its positions are embedded, so that it has no other size.
    """

    def __init__(self, in_channels: Sequence[int], out_channels: int, attention_hw: tuple[int, int]) -> None:
        super().__init__()
        self.attention_hw = attention_hw
        self.lateral_convs = nn.ModuleList(ConvNormAct(channels, out_channels, 1) for channels in in_channels)
        self.transformer = Transformer(len(in_channels) * out_channels, out_channels)
        self.pos_embed = nn.Parameter(torch.zeros(attention_hw[0] * attention_hw[1], 1, out_channels))

    def init_weights(self) -> None:
        """Random weights to train from, as nanodet's."""
        nn.init.trunc_normal_(self.pos_embed, std=INIT_STD)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=INIT_STD)
                nn.init.zeros_(module.bias)
            elif isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=0.01)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Maps ``[N, C_i, H_i, W_i]`` from fine to coarse -> as many maps of ``out_channels``.

        Raises:
            ValueError: the middle one is not of ``attention_hw``.
        """
        fine, middle, coarse = (conv(x) for conv, x in zip(self.lateral_convs, features, strict=True))
        if tuple(middle.shape[-2:]) != self.attention_hw:
            found, known = (tuple(STRIDE * side for side in size) for size in (middle.shape[-2:], self.attention_hw))
            raise ValueError(f"an input of {found[0]} x {found[1]}: this network's positions are those of {known}")
        joined = torch.cat((resize_to(fine, middle), middle, resize_to(coarse, middle)), dim=1)
        mixed = self.transformer(joined, self.pos_embed)
        return [fine + resize_to(mixed, fine), middle + mixed, coarse + resize_to(mixed, coarse)]
