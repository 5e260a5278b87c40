"""An S3 server of this machine, for tests of what lies in buckets."""

import urllib.request

from pyarrow import fs


class Server:
    """It can go and come back at the same port, with all that it holds."""

    def __init__(self) -> None:
        self.port = 0
        self.running = False
        self.start()

    def start(self) -> None:
        from moto.server import ThreadedMotoServer  # half a second, which each worker of pytest would pay

        self._server = ThreadedMotoServer("127.0.0.1", self.port, verbose=False)
        self._server.start()
        self.port = self._server.get_host_and_port()[1]
        self.running = True

    def stop(self) -> None:
        self._server.stop()
        self.running = False

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def system(self) -> fs.S3FileSystem:
        return fs.S3FileSystem(
            endpoint_override=f"127.0.0.1:{self.port}", scheme="http", region="us-east-1", allow_bucket_creation=True
        )

    def uri(self, path: str) -> str:
        return f"s3://{path}?endpoint_override=127.0.0.1:{self.port}&scheme=http"

    def names(self, path: str) -> set[str]:
        """The files below a folder of a bucket, relative to it."""
        infos = self.system.get_file_info(fs.FileSelector(path, recursive=True, allow_not_found=True))
        return {info.path.removeprefix(f"{path}/") for info in infos if info.type == fs.FileType.File}

    def deny(self, denied: bool) -> None:
        """Refuse all keys, or take all."""
        request = urllib.request.Request(
            f"{self.address}/moto-api/reset-auth",
            data=b"0" if denied else b"inf",
            headers={"Content-Type": "text/plain"},
            method="POST",
        )
        urllib.request.urlopen(request).close()
