"""What can be fitted: one module each, named as the teacher that reads the result. Each offers

    DEFAULTS: FitSettings                     the official recipe's numbers, with their source
    course(request: FitRequest) -> Course     the model with its first weights, and its batches

and, where it brings its own clips, `prepare(data: Path)`, which makes them, `DATASET` and `DATA`, under which
they are read, and `TOLD`, which the result tells; `OUT`, where the package ships the result; `OPTIONS`, names
of options that not every course has and this one takes.
"""
