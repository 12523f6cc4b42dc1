"""What a training starts from: crops and tasks of packed voices, and the baselines' scores."""

import json

import sound
import torch
from tasks import Tasks, mfcc
from voices import HOP, SPEEDS, Crops, Voices


def prepare(packed, device, log, limit=0, speeds=SPEEDS, hop=HOP, meetings=60, cache=None):
    """Return crops and tasks of packed voices, on the device."""
    torch.backends.cudnn.allow_tf32 = False
    voices = Voices(packed, device, limit, speeds, cache)
    log(
        event="voices",
        speakers=len(voices.rows),
        held_out=len(voices.held_out),
        samples=int(voices.audio.numel()),
        hours=round(voices.audio.numel() / 57.6e6, 2),
    )
    teacher = sound.Teacher(packed / "teacher.safetensors", device)
    crops = Crops(voices, teacher, torch.Generator(device).manual_seed(0), hop, cache)
    log(event="teacher", windows=len(crops.said), classes=crops.classes)
    try:
        tasks = Tasks(voices, meetings)
        log(event="tasks", segments=len(tasks.segments))
    except Exception as fault:  # then nothing is chosen, but a training still ends in weights
        tasks = None
        log(event="tasks failed", fault=repr(fault)[:500])
    return crops, tasks, teacher


def baselines(tasks, teacher, crops, log, cache=None):
    """Log what the teacher and MFCCs reach on the same rows, from the cache if there."""
    path = cache and cache / f"baselines-{len(tasks.segments)}.json"
    if path and path.exists():
        rows = json.loads(path.read_text())
    else:
        cepstra = mfcc(sound.LogMel(2, crops.voices.device))
        functions = {
            "MFCC": cepstra,
            "teacher": teacher,
            "teacher, centred": lambda waves: teacher(waves) - crops.centre,
        }
        rows = {name: tasks.scores(tasks.encode(f)) for name, f in functions.items()}
        if path:
            path.write_text(json.dumps(rows))
    for name, row in rows.items():
        log(event="baseline", name=name, **row)
