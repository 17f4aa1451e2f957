# Prints 1 if the package index answers, as pip of this device is set up, else 0. $1: a Python
"$1" - <<'END'
import configparser, os, socket
from urllib.parse import urlsplit

home = os.path.expanduser("~")
names = ["/etc/pip.conf", "/etc/xdg/pip/pip.conf", home + "/.pip/pip.conf", home + "/.config/pip/pip.conf"]
settings = configparser.ConfigParser(interpolation=None, strict=False)
try:
    settings.read(names, encoding="utf-8")
except (configparser.Error, UnicodeError):
    pass
index = settings.get("global", "index-url", fallback="https://pypi.org/simple")
address = urlsplit(os.environ.get("https_proxy") or os.environ.get("PIP_INDEX_URL") or index)
try:
    socket.create_connection((address.hostname, address.port or (80 if address.scheme == "http" else 443)), 5).close()
    print(1)
except (OSError, ValueError):
    print(0)
END
