"""What can go wrong with a folder of documents or a model, and what to do about it.

ResearchError
├── DocsError                 the folder given with --docs
│   ├── DocsMissingError      it does not exist, or is not a folder
│   ├── DocsUnreadableError   it may not be listed
│   ├── DocsEmptyError        nothing in it can be read as a document
│   └── OutsideDocsError      a path that leads out of it
└── ModelError                the model behind PARTY_MODEL_URL
    ├── ModelMissingError     the SDK is not installed or the settings are not there
    ├── ModelCallError        it did not answer; trying again may help
    └── ModelAnswerError      it answered, but with nothing that stands in the documents
"""

from __future__ import annotations


class ResearchError(Exception):
    """Anything the research example refuses, with what to do next in the message."""


class DocsError(ResearchError):
    """The folder of documents cannot be used as it is."""


class DocsMissingError(DocsError):
    """The folder does not exist, or is a file."""


class DocsUnreadableError(DocsError):
    """The folder may not be listed by this user."""


class DocsEmptyError(DocsError):
    """The folder holds no file that can be read as a document."""


class OutsideDocsError(DocsError):
    """A document's path is absolute or leads out of the folder."""


class ModelError(ResearchError):
    """A configured model could not compose the answer."""


class ModelMissingError(ModelError):
    """The `openai` package or one of the two settings is missing."""


class ModelCallError(ModelError):
    """The endpoint could not be reached or refused the call. Retryable."""


class ModelAnswerError(ModelError):
    """The model's answer is malformed or quotes nothing that stands in the documents."""
