"""How the weights "cxr", which come with the package, were trained, measured and described.

- ``python -m pretraining train DATA OUT [--leave-out TABLE] [--epochs N] [--device D]``
- ``python -m pretraining measure DATA OUT --weights FOLDER [--lite0 FILE] [--draws N]``
- ``python -m pretraining card OUT MEASURED``

DATA of the first is Kermany et al. 2018, as :func:`skcxr.datasets.fetch_kermany` gives it. On one
core that computes in bfloat16 the training took 32 minutes; it goes on where it was stopped.
"""
