package printed

import (
	"slices"
	"testing"
)

func TestLines(t *testing.T) {
	text := "# Use\n\nA `weir status` in a sentence.\n\n```\nmake build\nbin/weir node --dev    # one node: http://127.0.0.1:8080\n" +
		"bin/weir node --http a \\\n    --data-dir b\n{\"json\": 1}\n```\n" +
		"  weir events --since 10m\nweir undrain takes it back\nweir is a node\npublish   weir publish --pattern URL\n  source <(weir completion bash)\n"
	want := []string{"make build", "bin/weir node --dev", "bin/weir node --http a --data-dir b", "weir events --since 10m",
		"weir publish --pattern URL", "source <(weir completion bash)"}
	if got := Lines(text); !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	if got := Spans(text); !slices.Equal(got, []string{"weir status"}) {
		t.Errorf("within sentences: %q", got)
	}
}
