"""Several short trainings at equal cost, then one long one of the best.

    python race.py PACKED OUT --seconds 270 --trial 12                 # a GPU lent for minutes
    python race.py PACKED OUT --trial 120 --only base,mel --cache DIR  # trials alone, on a CPU

Which trial is best is told by the score on held-out speakers (`tasks.py`) alone. Seconds of a trial
are the CPU's own where it trains, so that others on the machine do not count; `--seconds` is the
whole on a clock, loading included. OUT holds at most 8 files of at most 16 MiB.
"""

import argparse
import json
import time
import traceback
from dataclasses import asdict, replace
from pathlib import Path

import student as students
import torch
from lines import Log
from prepare import baselines, prepare
from train import Config, Lesson, fastest_convolution
from voices import HOP

LAST = {4: 1.0}  # the loss on the last of four layers alone
TRIALS = (
    Config(name="base", losses=LAST),
    Config(name="float32", losses=LAST, half=False),
    Config(name="mel", losses=LAST, front="mel"),
    Config(name="two-layers"),
    Config(name="teacher-less", losses=LAST, teacher=0.0),
    Config(name="rate-double", losses=LAST, rate=3e-3),
    Config(name="stride-2", losses=LAST, stride=2),
    Config(name="wide", losses={3: 1.0}, layers=3, width=256, inner=512),
    Config(name="deep", losses={6: 1.0}, layers=6, width=160, inner=320),
    Config(name="rate-half", losses=LAST, rate=7.5e-4),
    Config(name="teacher-led", losses=LAST, speaker=0.2),
    Config(name="mild", losses=LAST, strength=0.6),
)


def trial(config, crops, tasks, device, log, work, seconds, way):
    """Train one configuration for so long; return its score."""
    lesson = Lesson(replace(config), crops, device, log, work, work)
    students.set_convolution(lesson.student.encoder, way)
    if device.type == "cpu":
        lesson.clock = time.process_time
    scores = lesson.run(seconds, tasks=tasks, checks=1, save_every=1e9, every_layer=False)
    log(event="trial", name=config.name, steps=lesson.step, crops=lesson.crops_seen, **scores)
    return scores["score"]


def parse():
    """Return the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("packed", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seconds", type=float, default=270.0, help="for all of it")
    parser.add_argument("--trial", type=float, default=12.0, help="s of each trial")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--work", type=Path, default=Path("/tmp/race"))
    parser.add_argument("--limit", type=int, default=0)
    parser.add_argument("--teacher-hop", type=int, default=HOP)
    parser.add_argument("--meetings", type=int, default=60)
    parser.add_argument("--only", default="", help="trials' names; then nothing follows them")
    parser.add_argument("--cache", type=Path, help="folder: the next start takes seconds")
    parser.add_argument("--no-baselines", action="store_true")
    parser.add_argument("--batch", type=float, default=128.0)
    return parser.parse_args()


def run_trials(options, crops, tasks, device, log, way, until):
    """Return {name: score} of the trials that began early enough to end before `until`."""
    scores = {}
    only = options.only.split(",") if options.only else []
    for given in TRIALS:
        if only and given.name not in only:
            continue
        late = not only and time.time() + options.trial > until
        if tasks is None or options.trial <= 0 or late:
            break
        config = replace(given, batch=options.batch)
        settings = config, crops, tasks, device, log, options.work, options.trial, way
        try:
            scores[config.name] = trial(*settings)
        except Exception:
            log(event="trial failed", name=config.name, fault=traceback.format_exc()[-1500:])
        if device.type == "cuda":
            torch.cuda.empty_cache()
    return scores


def write_final(lesson, config, out):
    """Write the last weights: what transformers loads, and plain tensors."""
    lesson.save("last")
    weights = {"encoder": lesson.student.encoder.state_dict(), "step": lesson.step}
    torch.save({"config": asdict(config), **weights}, out / "final-weights.pt")
    torch.save({"heads": lesson.student.heads.state_dict()}, out / "final-heads.pt")


def main():
    """Run the trials, then the long training, within the time of the command line."""
    options, begun = parse(), time.time()
    end = begun + options.seconds - 15  # s for the last checks and the last files
    out, device = options.out, torch.device(options.device)
    for folder in (out, options.work):
        folder.mkdir(parents=True, exist_ok=True)
    log, gpu = Log(out / "log.jsonl"), device.type == "cuda"
    card = torch.cuda.get_device_name() if gpu else "none"
    log(event="begin", torch=torch.__version__, card=card)
    if device.type == "cpu":
        torch.set_num_threads(1)
    sizes = {"hop": options.teacher_hop, "meetings": options.meetings, "cache": options.cache}
    crops, tasks, teacher = prepare(options.packed, device, log, options.limit, **sizes)
    try:
        if not options.no_baselines:
            baselines(tasks, teacher, crops, log, options.cache)
    except Exception:
        log(event="baselines failed", fault=traceback.format_exc()[-1500:])
    first = Lesson(replace(TRIALS[0], batch=options.batch), crops, device, log, options.work)
    way = fastest_convolution(first, log) if gpu else "native"
    del first
    half = begun + 0.5 * options.seconds
    scores = run_trials(options, crops, tasks, device, log, way, half)
    if options.only:
        return
    best = max(scores, key=scores.get) if scores else TRIALS[0].name
    chosen = next(config for config in TRIALS if config.name == best)
    (out / "chosen.json").write_text(json.dumps({"scores": scores, **asdict(chosen)}))
    log(event="chosen", name=best, scores=scores)
    final = replace(chosen, name="final", batch=options.batch, average=0.999)
    lesson = Lesson(final, crops, device, log, out, options.work)
    students.set_convolution(lesson.student.encoder, way)
    try:
        lesson.run(max(30.0, end - time.time()), tasks=tasks, checks=6, save_every=1e9)
    except Exception:
        log(event="final failed", fault=traceback.format_exc()[-1500:])
    write_final(lesson, final, out)
    memory = round(torch.cuda.max_memory_allocated() / 2**30, 1) if gpu else None
    files = [path.name for path in out.iterdir()]
    log(event="end", crops=lesson.crops_seen, gib=memory, files=files)


if __name__ == "__main__":
    main()
