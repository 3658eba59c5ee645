"""How the weights "cxr", which come with the package, were trained, measured and described.

    python -m pretraining train DATA OUT [--leave-out TABLE] [--epochs N] [--device D]
    python -m pretraining measure DATA OUT --weights FILE [--against FILE]
    python -m pretraining card OUT [--to FOLDER]
"""
