"""What a training starts from: crops and tasks of packed voices, and the baselines' scores."""

import sound
import torch
from tasks import Tasks, mfcc
from voices import SPEEDS, Crops, Voices


def prepare(packed, device, log, limit=0, speeds=SPEEDS, hop=12800, meetings=60, background=400):
    """Return crops and tasks of packed voices, on the device."""
    torch.backends.cudnn.allow_tf32 = False
    voices = Voices(packed, device, limit, speeds)
    log(
        event="voices",
        speakers=len(voices.rows),
        held_out=len(voices.held_out),
        samples=int(voices.audio.numel()),
        hours=round(voices.audio.numel() / 57.6e6, 2),
    )
    teacher = sound.Teacher(packed / "teacher.safetensors", device)
    crops = Crops(voices, teacher, torch.Generator(device).manual_seed(0), hop)
    log(event="teacher", windows=len(crops.said), classes=crops.classes)
    try:
        tasks = Tasks(voices, meetings, background)
        log(event="tasks", segments=len(tasks.segments))
    except Exception as fault:  # then nothing is chosen, but a training still ends in weights
        tasks = None
        log(event="tasks failed", fault=repr(fault)[:500])
    return crops, tasks, teacher


def baselines(tasks, teacher, crops, log):
    """Log what the teacher and MFCCs reach on the same rows."""
    logmel = sound.LogMel(2, crops.voices.device)
    log(event="baseline", name="MFCC", **tasks.scores(tasks.encode(mfcc(logmel))))
    log(event="baseline", name="teacher", **tasks.scores(tasks.encode(teacher)))
    log(
        event="baseline",
        name="teacher, centred",
        **tasks.scores(tasks.encode(lambda w: teacher(w) - crops.centre)),
    )
