"""Write the OpenAPI document that the edge serves: `make openapi`, after a change of a route, a model or an example."""

from build import PATH, render

if __name__ == "__main__":
    PATH.write_text(render(), encoding="utf-8")
    print(f"wrote {PATH.name}: {PATH.stat().st_size // 1000} kB")
