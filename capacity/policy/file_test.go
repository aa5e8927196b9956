package policy

import (
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestPolicyTextRoundTrip(t *testing.T) {
	for _, p := range []Policy{Default(), BinPacking()} {
		p.Version = 7
		roundTrip(t, p)
		p.Provision = Provision{Cooldown: time.Minute, WaitTimeout: 1500 * time.Millisecond, MaxNodes: 12, IdleTimeout: time.Hour, MinNodes: 3}
		roundTrip(t, p)
	}
}

func roundTrip(t *testing.T, p Policy) {
	t.Helper()
	text, err := p.Text()
	if err != nil {
		t.Fatal(err)
	}
	back, err := Parse("p.yaml", text)
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	if got := back.Policy(); !reflect.DeepEqual(got, p) {
		t.Errorf("got %+v\nwant %+v", got, p)
	}
}

// A former name of a field is refused with the present name.
func TestOldNamesAreRefusedWithTheNew(t *testing.T) {
	for text, want := range map[string]string{
		"mood: spread\n":                                               "p.yaml:1:1: field \"mood\" is called strategy now\n    mood: spread\n    ^",
		"strategy: pack\n":                                             "p.yaml:1:11: want binpack, as pack is called now",
		"provision: {wait: 5s}\n":                                      "p.yaml:1:13: field \"wait\" is called wait_timeout now",
		"provision:\n  most: 5\n":                                      "p.yaml:2:3: field \"most\" is called max_nodes now\n      most: 5\n      ^",
		"provision: {idle: 5m}\n":                                      "p.yaml:1:13: field \"idle\" is called idle_timeout now",
		"provision: {least: 1}\n":                                      "p.yaml:1:13: field \"least\" is called min_nodes now",
		"provision: {mood: spread}\n":                                  "p.yaml:1:13: unknown field \"mood\": there are cooldown",
		"filter:\n  - {name: a, expr: r.children_free >= 1}\n":         "p.yaml:2:23: rule \"a\": r.children_free is called r.fanout_free now\n      - {name: a, expr: r.children_free >= 1}\n                          ^",
		"score:\n  - {name: a, expr: 1 - me.believed}\n":               "p.yaml:2:28: term \"a\": me.believed is called me.trust now",
		"score:\n  - name: a\n    expr: |\n      1 -\n        r.lot\n": "p.yaml:5:11: term \"a\": r.lot is called r.hash now",
	} {
		if _, err := Parse("p.yaml", []byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got\n%v\nwant %s", text, err, want)
		}
	}
}

// A mistake is shown at its place, with a caret below it.
func TestPolicyMistakesAreShown(t *testing.T) {
	for name, c := range map[string]struct{ text, want string }{
		"an unknown field of a record": {
			"name: x\nfilter:\n  - name: room\n    expr: r.sesions_free >= 1\n",
			"p.yaml:4:13: rule \"room\": ",
		},
		"in quotes": {
			"filter:\n  - name: room\n    expr: \"r.sesions_free >= 1\"\n",
			"p.yaml:3:14: rule \"room\": ",
		},
		"in a block": {
			"filter:\n  - name: room\n    expr: |\n      r.stress < 0.9\n        && r.sesions_free >= 1\n",
			"p.yaml:5:14: rule \"room\": ",
		},
		"a filter that is no condition": {
			"filter:\n  - {name: room, expr: r.stress}\n",
			"p.yaml:2:26: rule \"room\": yields a float64, want a condition\n      - {name: room, expr: r.stress}\n                             ^",
		},
		"a score that is no number where something is 0": {
			"score:\n  - {name: a, expr: 1 / r.viewers}\n",
			"p.yaml:2:21: term \"a\": yields +Inf for a node without limits: where it divides",
		},
		"a strategy that is none": {"strategy: merry\n", "p.yaml:1:11: want spread or binpack"},
		"a time without a unit":   {"provision:\n  wait_timeout: 5\n", "p.yaml:2:17: want a duration such as 30s"},
		"a wait that is too long": {
			"provision: {wait_timeout: 2m}\n", "p.yaml: policy: provision: wait_timeout 2m0s: want whole milliseconds within 0…30s",
		},
		"provisioning that never was": {"provision: {speed: 5}\n", "p.yaml:1:13: unknown field \"speed\": there are cooldown, idle_timeout"},
		"a string compared with a number": {
			"filter:\n  - name: a\n    expr: r.region == 3\n",
			"p.yaml:3:",
		},
		"a typo in a state": {
			"filter:\n  - name: a\n    expr: r.state == \"actve\"\n",
			"p.yaml:3:22: rule \"a\": \"actve\" is none of active, draining, full",
		},
		"a field that is none": {
			"name: x\nfilters: []\n",
			"p.yaml:2:1: unknown field \"filters\": there are balance, depth, fanout, filter",
		},
		"the same name twice": {
			"score:\n  - {name: a, expr: \"1\"}\n  - {name: a, expr: \"2\"}\n",
			"p.yaml:3:12: term \"a\": the name is taken",
		},
		"a weight that is none": {
			"score:\n  - {name: a, expr: \"1\", weight: much}\n",
			"p.yaml:2:34: want a number",
		},
		"a field twice": {
			"name: a\nname: b\n",
			"p.yaml:2:1: field \"name\" is there twice",
		},
		"an alias": {
			"name: a\nfilter: &f\n  - {name: a, expr: \"true\"}\nscore: *f\n",
			"p.yaml:4:8: want a list",
		},
		"no YAML":   {"a: [b\n", "p.yaml:1:"},
		"nothing":   {"", "p.yaml: it is empty"},
		"two":       {"name: a\n---\nname: b\n", "p.yaml: want one document"},
		"an anchor": {"name: &x a\n", "p.yaml:1:7: want a name"},
		"a loop": {
			"filter:\n  - name: a\n    expr: all([1, 2], # > 0)\n",
			"p.yaml:3:",
		},
		"too long": {"# " + strings.Repeat("x", MaxText), "p.yaml: 32770 bytes, at most 32768"},
	} {
		_, err := Parse("p.yaml", []byte(c.text))
		var faults *Faults
		if !errors.As(err, &faults) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got\n%v\nwant %s", name, err, c.want)
		}
	}
}

func TestAllMistakesAreShownAtOnce(t *testing.T) {
	_, err := Parse("p", []byte("filter:\n  - {name: a, expr: r.x}\nscore:\n  - {name: b, expr: r.y}\n"))
	var faults *Faults
	if !errors.As(err, &faults) || len(faults.Faults) != 2 || faults.Faults[0].Line != 2 || faults.Faults[1].Line != 4 {
		t.Errorf("got %+v", faults)
	}
}

func FuzzParsePolicy(f *testing.F) {
	text, err := Default().Text()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(string(text))
	for _, s := range []string{"filter:\n  - {name: a, expr: r.x}\n", "a: [b", "name: &x a\nb: *x", "score:\n  - name: a\n    expr: |\n      1 +\n      r.x\n", "\t", "---\n---\n"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		judge, err := Parse("p", []byte(s))
		if err != nil {
			if err.Error() == "" {
				t.Fatal("an error that says nothing")
			}
			return
		}
		p := judge.Policy()
		if _, err := Compile(p); err != nil {
			t.Fatalf("a policy that was read does not compile: %v", err)
		}
		text, err := p.Text()
		if err != nil {
			t.Fatal(err)
		}
		back, err := Parse("p", text)
		if err != nil && len(text) <= MaxText {
			t.Fatalf("what was written cannot be read: %v\n%s", err, text)
		}
		if err == nil && !samePolicy(p, back.Policy()) {
			t.Fatalf("%+v became %+v", p, back.Policy())
		}
	})
}

func samePolicy(a, b Policy) bool {
	norm := func(p Policy) Policy {
		if len(p.Filter) == 0 {
			p.Filter = nil
		}
		if len(p.Score) == 0 {
			p.Score = nil
		}
		return p
	}
	return reflect.DeepEqual(norm(a), norm(b))
}
