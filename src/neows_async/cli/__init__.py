"""The command line: the only package that reads the environment, handles signals, prints and exits.

One command a file. ``app`` imports a command's module when that command is called: ``--help`` answers at once. ::

    __main__ ─► app ─► run · plan · path · snapshots · verify · quarantine · prune · sandbox
                        │
                        ├─ options     click options: most of run's are made from the fields of Settings
                        ├─ config      their values: arguments, environment, .env, TOML file → Settings
                        ├─ parts       names of parts → sources, sinks, aggregators
                        ├─ foreground  asynchronous work, signals, storage calls that hang
                        ├─ ingest      one run in the foreground (run, quarantine replay)
                        └─ output      stdout, stderr and broken pipes; exit_codes: error → code

    what people see:  progress_view with event_lines · summary · plan_view with timeline

Two values cross the border to the library: :class:`~neows_async.settings.Settings`, and
:class:`~neows_async.pipeline.run.Parts`; back comes a :class:`~neows_async.lake.receipt.Receipt` or an exception.

Promises:

- An error is one line on stderr and one exit code (``exit_codes``); the line never holds the key.
- A signal ends the process within two seconds, and leaves a snapshot that the same command resumes.
- A closed pipe or a full disk behind stdout and stderr never ends a run.

Start reading at ``run``, then ``ingest``. A new command is a new file, and one line in ``app``.
"""
