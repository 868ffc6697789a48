"""Embedding throughput beside plain open_clip, in one run: pictures and texts.

    python tests/benchmarks/bench_teachers.py [--quick] [--threads N]

Weights are random (speed does not depend on them), so nothing is downloaded. The peer for pictures is what open_clip's
README shows: PIL transform and one forward pass per picture; "batched" is its transform per picture and one pass per
batch. The peer for texts is open_clip with its tokenizer, which pads each text to the full context. Every figure is the
best of the repeats, since others may use the machine; ratios are taken from it.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch
from PIL import Image

from clipgs_lib.libraries import import_open_clip
from clipgs_lib.teachers import Teacher, mini
from clipgs_lib.teachers.mini import MiniTower


def best_rate(count: int, repeats: int, work: Callable[[], object]) -> float:
    """Items per second of the best repeat, after a warm-up."""
    work()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return count / min(times)


def show(name: str, unit: str, rates: dict[str, float]) -> None:
    """Print rates and how they compare with the first one."""
    base = next(iter(rates.values()))
    for who, rate in rates.items():
        print(f"{name:<34} {who:<34} {rate:10.1f} {unit}/s  x{rate / base:.2f}", flush=True)


def random_mini() -> tuple[object, object, dict]:
    """The towers of `mini` with a random image tower of the default size."""
    config = mini.default_config(MiniTower(4.0, 20, 0.5), 160)
    return mini.Mini(config).eval(), mini.MiniTokenizer(), config["model_cfg"]


def random_vit() -> tuple[object, object, dict]:
    """ViT-B-32 with random weights."""
    open_clip = import_open_clip()
    model = open_clip.create_model("ViT-B-32").eval()
    return model, open_clip.get_tokenizer("ViT-B-32"), open_clip.get_model_config("ViT-B-32")


@torch.no_grad()
def pictures(name: str, model, teacher: Teacher, count: int, repeats: int) -> None:
    """Pictures per second."""
    transform = import_open_clip().transform
    change = transform.image_transform_v2(transform.PreprocessCfg(**model.visual.preprocess_cfg), is_train=False)
    images = (torch.rand(count, 256, 256, 3, generator=torch.Generator().manual_seed(0)) * 255).to(torch.uint8)
    plain = [Image.fromarray(image.numpy()) for image in images]

    def one_by_one():
        return [model.encode_image(change(image)[None], normalize=True) for image in plain]

    def batched():
        return model.encode_image(torch.stack([change(image) for image in plain]), normalize=True)

    work = {
        "open_clip, one by one": one_by_one,
        "open_clip, batched": batched,
        "ours": lambda: teacher.encode_image(images),
    }
    rates = {who: best_rate(count, repeats, do) for who, do in work.items()}
    show(f"{name}, 256 px pictures", "image", rates)


@torch.no_grad()
def texts(name: str, model, tokenizer, teacher: Teacher, count: int, repeats: int) -> None:
    """Short texts per second."""
    words = [f"a {color} cup number {n}" for n, color in zip(range(count), ["red", "dark blue"] * count, strict=False)]
    full = getattr(tokenizer, "full", tokenizer)
    work = {
        "open_clip": lambda: model.encode_text(full(words), normalize=True),
        "ours": lambda: teacher.encode_text(words),
    }
    rates = {who: best_rate(count, repeats, do) for who, do in work.items()}
    show(f"{name}, short texts", "text", rates)


def main() -> None:
    """Run all cases."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer pictures and repeats")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads; 0: as torch decides")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    count, repeats = (16, 2) if options.quick else (64, 5)
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {count} items, best of {repeats}")
    for name, build in {"mini (EfficientNet-Lite0, 160 px)": random_mini, "ViT-B-32 (224 px)": random_vit}.items():
        model, tokenizer, model_cfg = build()
        teacher = Teacher(model, tokenizer, name=name, model_cfg=model_cfg)
        pictures(name, model, teacher, count, repeats)
        texts(name, model, tokenizer, teacher, count, repeats)


if __name__ == "__main__":
    main()
