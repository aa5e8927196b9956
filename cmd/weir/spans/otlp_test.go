package spans

import (
	"maps"
	"net/http"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
)

func otlpClientTo(t *testing.T, endpoint string) *otlpClient {
	t.Helper()
	c, err := newOTLPClient(endpoint)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestHeadersOfTheEnvironment(t *testing.T) {
	for list, want := range map[string]http.Header{
		"":                                 {},
		"authorization=Bearer%20a.b==":     {"Authorization": {"Bearer a.b=="}},
		" x-tenant = one , api-key=k%2C1,": {"X-Tenant": {"one"}, "Api-Key": {"k,1"}},
	} {
		got := http.Header{}
		if err := addHeaders(got, list); err != nil || !maps.EqualFunc(got, want, func(a, b []string) bool { return strings.Join(a, " ") == strings.Join(b, " ") }) {
			t.Errorf("%q: %v, %v", list, got, err)
		}
	}
	for _, list := range []string{"SECRET", "a b=SECRET", "a=SECRET%zz", "a=SECRET%0a", "=SECRET"} {
		if err := addHeaders(http.Header{}, list); err == nil || strings.Contains(err.Error(), "SECRET") {
			t.Errorf("%q: %v", list, err)
		}
	}
}

func TestPartialSuccess(t *testing.T) {
	response := func(rejected uint64, message string) []byte {
		var partial []byte
		if rejected > 0 {
			partial = protowire.AppendVarint(protowire.AppendTag(partial, 1, protowire.VarintType), rejected)
		}
		if message != "" {
			partial = protowire.AppendString(protowire.AppendTag(partial, 2, protowire.BytesType), message)
		}
		return protowire.AppendBytes(protowire.AppendTag(nil, 1, protowire.BytesType), partial)
	}
	for name, c := range map[string]struct {
		answer []byte
		want   string // "": none
	}{
		"an empty answer":      {nil, ""},
		"all of them":          {response(0, ""), ""},
		"some of them":         {response(3, "too old"), "rejected 3 spans: too old"},
		"only a warning":       {response(0, "slow down"), "slow down"},
		"what is no message":   {[]byte{0xff}, "EOF"},
		"what breaks off":      {response(3, "too old")[:5], "EOF"},
		"a field not known":    {append(protowire.AppendVarint(protowire.AppendTag(nil, 9, protowire.VarintType), 1), response(0, "")...), ""},
		"fields of wrong kind": {protowire.AppendVarint(protowire.AppendTag(nil, 1, protowire.VarintType), 1), ""},
	} {
		err := partialSuccess(c.answer)
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}
