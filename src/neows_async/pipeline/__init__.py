"""The flow of a run: the only package with tasks and queues of pages.

::

    run.py          into a lake: the tasks of a run, its outputs and its receipt          (start here)
    stream.py       to an iterator, without a lake
    reader.py       the reading half: plan a generation, read its pages in order, admit them
    fetch_loop.py   the fetching half: what each fetch task does, and how all of them end
    fetcher.py      one page: requests and retries until it is received
    scheduler.py    which page is fetched next (pure)
    buffer.py       pages wait here for the reader: in the raw zone, the next ones in memory
    decoder.py      receives and decodes pages, in a thread or in a worker process
    decode_worker.py   the worker process, and its protocol
    admission.py    cut at the limit, drop duplicates, count (pure)
    page_queue.py   the bounded queue in front of each output
    guards.py       checks of the user's parts
    stats.py        what a run counts; nothing is decided by it

Values at the border: :class:`~neows_async.pipeline.run.Parts` in, :class:`~neows_async.lake.receipt.Receipt` out.

Promise: pages are admitted in page order, so the outputs do not depend on concurrency, retries or crashes. Every queue
is bounded. No task outlives the call, and cancelling it leaves a state that the next run resumes.
"""
