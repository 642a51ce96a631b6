"""Files that people send: kept once, streamed in and out, never held in memory.

    upload.py download.py   the two ways, and content that is promised but not there yet
    blobs.py names.py       files by their hash; what may be an id or a file name
    thumbnails.py           pictures shrunk in a process of its own (thumbnail_worker.py)
    quarantine.py           taking content away
    limits.py repository.py the numbers, and the parts put together
"""
