"""`petground send`: DICOM SEG and SR to a server by DICOMweb."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from rich.console import Console

from petground.pipeline.review.earlier import unlisted
from petground.pipeline.sources.store import find_objects, send_objects
from petground.pipeline.sources.web import server

__all__ = ["send"]


def send(
    path: Path,
    url: str,
    images: bool = False,
    user: str | None = None,
    token_env: str | None = None,
    ca: Path | None = None,
    retries: int = 4,
    timeout_seconds: float = 60.0,
    dry_run: bool = False,
) -> int:
    """Send the DICOM SEG, SR and value maps of PATH to a PACS by DICOMweb (STOW-RS), and look whether they arrived.

    PATH is a folder that `petground review export` wrote, of which the exams that its index lists are sent, or one
    file. Images are not sent unless asked for. The password of --user is read from PETGROUND_DICOMWEB_PASSWORD; without
    --user and --token-env, ~/.netrc is asked.

    Args:
        path: folder or file.
        url: root of the DICOMweb service, e.g. https://pacs.example/dicom-web.
        images: send every DICOM file, images too.
        user: name for basic authentication.
        token_env: environment variable that holds a bearer token.
        ca: PEM file of the certificate authority that signed the server's certificate.
        retries: tries after a failed one, with growing waits.
        timeout_seconds: longest silence of the server.
        dry_run: only count what would be sent.
    """
    console = Console()
    where = server(url, user=user, token_env=token_env, ca=ca, timeout_s=timeout_seconds, retries=retries)
    objects = find_objects(path, images=images)
    if path.is_dir() and (gone := unlisted(file for file, *_ in objects)):
        objects = [item for item in objects if item[0] not in gone]
        told = f"{len(gone)} objects are not sent: the review's index.html does not list their exams"
        console.print(told, style="yellow", highlight=False)
    studies = len({study for _, study, _, _ in objects})
    if dry_run:
        console.print(f"{len(objects)} objects of {studies} studies would be sent", highlight=False)
        return 0
    if where.exposed:
        console.print("the password goes over the network unencrypted: use https", style="yellow")
    failed: Counter[str] = Counter()
    for file, why in send_objects(where, objects):
        if why is not None:
            failed[why] += 1
            console.print(f"  {file}: {why}", style="red", highlight=False, markup=False, soft_wrap=True)
    sent = len(objects) - failed.total()
    console.print(f"{sent} of {len(objects)} objects of {studies} studies are on the server", highlight=False)
    return 3 if failed else 0
