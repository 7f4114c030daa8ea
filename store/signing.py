"""Who vouches for a cache: SSH signatures of its digest, made and checked by `ssh-keygen -Y`.

What is signed is one line, "sha256:<digest>", so that anybody can check a signature without our code:

    echo sha256:<digest> | ssh-keygen -Y verify -n video-text-teacher-cache -I <who> -f <allowed> -s <file>

A signature lies beside the cache it is of, outside every digest: signatures/<digest>.sig. So what is added
later, and gets another digest, leaves the signatures of earlier states as they are.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from store.durable import is_sha256
from store.errors import InputError, MissingFileError, SignatureError
from store.manifest import SIGNATURES
from store.untrusted import printable

NAMESPACE = "video-text-teacher-cache"
"""What signatures of caches are for: a signature that somebody gave for a file or a commit is none."""
SIGNATURE_BYTES = 1 << 16
KEYS_BYTES = 1 << 22
PUBLIC_KEY = re.compile(r"(?:ssh-|ecdsa-sha2-|sk-)[\w@.-]+ [A-Za-z0-9+/]+=*(?: .*)?", re.ASCII)
NOISE = ("Signing data", "@")
SIGNED_BY = re.compile(r"with (\S+ key SHA256:\S+)")


def signature_path(digest: str) -> str:
    """Where the signature of the cache that `digest` names lies, relative to the cache."""
    return f"{SIGNATURES}/{digest}.sig"


def sign(digest: str, key: Path) -> bytes:
    """An armored SSH signature of the cache that `digest` names.

    key: a private key, or the public key of one that the agent holds. A key with a passphrase asks for it in
    a terminal. Raises MissingFileError for a key that is not there or without ssh-keygen, InputError for one
    that can't sign.
    """
    if not key.is_file():
        raise MissingFileError(f"--sign: there is no key {key}; make one: ssh-keygen -t ed25519 -f {key}")
    done = _ssh_keygen(digest, "-Y", "sign", "-n", NAMESPACE, "-f", str(key))
    if done.returncode == 0:
        return done.stdout
    said = _said(done)
    if "passphrase" in said:
        raise InputError(
            f"--sign {key}: the key wants its passphrase; load it with ssh-add and give its public key "
            f"({key.name.removesuffix('.pub')}.pub), or run in a terminal"
        )
    raise InputError(f"--sign {key}: ssh-keygen can't sign with it ({said}); name an SSH private key")


def verify(digest: str, signature: bytes, trusted: Path) -> str:
    """Who signed the cache that `digest` names, in words; raises unless it is one of those in `trusted`.

    trusted: public keys, one a line, or an allowed_signers file (man ssh-keygen). Raises SignatureError if
    the signature is damaged, of another cache, or of another key; MissingFileError, InputError for `trusted`
    or without ssh-keygen.
    """
    with tempfile.TemporaryDirectory() as folder:
        allowed, armored = Path(folder, "allowed_signers"), Path(folder, "signature")
        allowed.write_text(allowed_signers(trusted))
        armored.write_bytes(signature[:SIGNATURE_BYTES])
        signer = _signing_key(digest, armored)
        found = _ssh_keygen(digest, "-Y", "find-principals", "-f", str(allowed), "-s", str(armored))
        principal = found.stdout.decode(errors="replace").split("\n")[0].strip()
        if found.returncode != 0 or not principal:
            raise SignatureError(
                f"the cache is signed by {signer}, which {trusted} does not name (or no longer allows); "
                "ask who pushed it for the right public key, or do not use it"
            )
        checked = ["-Y", "verify", "-n", NAMESPACE, "-I", principal, "-f", str(allowed), "-s", str(armored)]
        done = _ssh_keygen(digest, *checked)
        if done.returncode != 0:
            said = _said(done).replace(str(allowed), str(trusted))
            raise SignatureError(f"the cache is signed by {signer}, which {trusted} refuses: {said}")
    return printable(f"{principal} ({signer})")


def allowed_signers(trusted: Path) -> str:
    """The content of an allowed_signers file for the keys in `trusted`, which may be one already."""
    if not trusted.is_file():
        raise MissingFileError(f"--verify: there is no file {trusted}; give the signer's public key (.pub)")
    if trusted.stat().st_size > KEYS_BYTES:
        raise InputError(f"--verify {trusted}: too large for public keys; give the signer's .pub")
    text = trusted.read_text(errors="replace")
    if "PRIVATE KEY-----" in text:
        raise InputError(f"--verify {trusted}: that is a private key; give the public one (.pub)")
    lines = [line for raw in text.splitlines() if (line := raw.strip()) and not line.startswith("#")]
    if not lines:
        raise InputError(f"--verify {trusted}: no key in it; give the signer's public key (.pub)")
    return "".join(f"{_allowed_line(line)}\n" for line in lines)


def _allowed_line(line: str) -> str:
    """A public key becomes a signer named by its comment; what begins otherwise names its signer itself."""
    if not PUBLIC_KEY.fullmatch(line):
        return line
    kind, key, *comment = line.split(" ", 2)
    name = re.sub(r"[^\w@.+-]", "_", comment[0] if comment else "", flags=re.ASCII) or "signer"
    return f'{name} namespaces="{NAMESPACE}" {kind} {key}'


def _signing_key(digest: str, armored: Path) -> str:
    """Type and fingerprint of the key that made a valid signature of `digest`, trusted or not."""
    done = _ssh_keygen(digest, "-Y", "check-novalidate", "-n", NAMESPACE, "-s", str(armored))
    said = SIGNED_BY.search(done.stdout.decode(errors="replace"))
    if done.returncode != 0 or said is None:
        reason = _said(done).replace(str(armored), "it")
        raise SignatureError(
            f"the signature of {digest[:12]}... is damaged or of another cache ({reason}); pull it again, "
            "and if it stays so do not use the cache"
        )
    return said[1]


def _ssh_keygen(digest: str, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    """Run ssh-keygen over the line that is signed."""
    if not is_sha256(digest):
        raise InputError(f"{digest!r} is no digest of a cache: 64 small hexadecimal digits")
    program = shutil.which("ssh-keygen")
    if program is None:
        raise MissingFileError(
            "signatures need ssh-keygen, of OpenSSH 8.2 or newer; install it (Debian: openssh-client), or "
            "leave --sign and --verify away"
        )
    return subprocess.run(
        [program, *arguments], input=f"sha256:{digest}\n".encode(), capture_output=True, check=False
    )


def _said(done: subprocess.CompletedProcess[bytes]) -> str:
    """What ssh-keygen complained of, in one line."""
    lines = (done.stderr + b"\n" + done.stdout).decode(errors="replace").splitlines()
    told = [line.strip() for line in lines if line.strip() and not line.startswith(NOISE)]
    return printable("; ".join(told), 300) or f"exit status {done.returncode}"
