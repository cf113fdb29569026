# Code for the interpreter's -c option: loads the modules of the renderer from descriptor 4, so that none of
# them needs to be a file.
import json, os, sys, types


def receive(count):
    data = b""
    while len(data) < count:
        part = os.read(4, count - len(data))
        if not part:
            os._exit(0)
        data += part
    return data


def frame():
    return receive(int.from_bytes(receive(4), "little"))


try:
    for name, source in json.loads(frame()):
        module = types.ModuleType(name)
        sys.modules[name] = module
        exec(compile(source, "<mnemo " + name + ">", "exec"), module.__dict__)
    module.run(4)
except Exception as error:
    head = json.dumps({"fatal": type(error).__name__ + ": " + str(error)}).encode()
    os.write(4, (4 + len(head)).to_bytes(4, "little") + len(head).to_bytes(4, "little") + head)
    os._exit(1)
