"""
Before you believe a score
==========================

A model that scores well on its own data set, the audit that warns of it, and what it says of
films from elsewhere. The films are drawings of phantom patients: a score on them says nothing
about people. The same with real radiographs is in the user guide.
"""

# %%
# The healthy and the ill come from two hospitals. The films of one carry a white border, those of
# the other none.

from skcxr import CXRClassifier, make_cxr_phantoms
from skcxr.audit import audit_dataset
from skcxr.model_selection import grouped_train_test_split
from skcxr.report import evaluate

data = make_cxr_phantoms(120, n_classes=2, image_size=64, shortcut="border", random_state=0)
X_train, X_test, y_train, y_test, p_train, p_test = grouped_train_test_split(
    data.data, data.target, data.groups, groups=data.groups, random_state=0
)
clf = CXRClassifier(max_epochs=15, random_state=0).fit(X_train, y_train, groups=p_train)
print(f"accuracy on other patients of the same data: {clf.score(X_test, y_test):.2f}")

# %%
# The audit needs no model. It names the border, and what a classifier scores without the lungs.

audit = audit_dataset(data.data, data.target, groups=data.groups, progress=False)
for finding in audit.alarms:
    print(finding.sentence, end="\n\n")
audit.plot()

# %%
# A third hospital has no borders. Whoever comes from there is taken for one class.

elsewhere = make_cxr_phantoms(60, n_classes=2, image_size=64, random_state=1)
report = evaluate(
    clf, X_test, y_test, groups=p_test, n_resamples=200, progress=False, heatmaps=None,
    external={"a third hospital": (elsewhere.data, elsewhere.target, elsewhere.groups)},
)  # fmt: skip
for sentence in report.external["a third hospital"].sentences:
    print(sentence)

# %%
# Whether the model itself reads the border is asked by exchanging parts of films between patients
# of different classes: does the answer follow the film, or its border?

report.shortcuts.plot()
print(report.shortcuts)

# %%
# ``report.to_html("report.html")`` writes all of it as one page.
