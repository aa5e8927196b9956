package main

import (
	"encoding/json"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"

	"weir/capacity"
	"weir/capacity/event"
	"weir/capacity/policy"
	"weir/cmd/weir/api"
	"weir/cmd/weir/doctor"
	"weir/dht"
	"weir/dht/inspect"
	"weir/sfu"
	"weir/sfu/problem"
)

func loadOpenAPI(t *testing.T) *openapi3.T {
	t.Helper()
	loader := openapi3.NewLoader()
	doc, err := loader.LoadFromFile("api/openapi.yaml")
	if err != nil {
		t.Fatal(err)
	}
	return doc
}

func TestOpenAPIIsValid(t *testing.T) {
	doc := loadOpenAPI(t)
	text, err := os.ReadFile("api/openapi.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(doc.OpenAPI, "3.1.") {
		t.Errorf("it is OpenAPI %s", doc.OpenAPI)
	}
	if err := doc.Validate(t.Context(), openapi3.EnableExamplesValidation()); err != nil {
		t.Error(err)
	}
	// A component without a reference describes nothing.
	for _, kind := range []string{"schemas", "responses", "parameters", "headers", "requestBodies"} {
		var names []string
		switch kind {
		case "schemas":
			names = slices.Collect(maps.Keys(doc.Components.Schemas))
		case "responses":
			names = slices.Collect(maps.Keys(doc.Components.Responses))
		case "parameters":
			names = slices.Collect(maps.Keys(doc.Components.Parameters))
		case "headers":
			names = slices.Collect(maps.Keys(doc.Components.Headers))
		case "requestBodies":
			names = slices.Collect(maps.Keys(doc.Components.RequestBodies))
		}
		for _, name := range names {
			if kind == "schemas" && (name == "RecordChange" || name == "Ping") {
				continue // of server-sent events, whose data OpenAPI 3.1 cannot describe
			}
			if !strings.Contains(string(text), `"#/components/`+kind+"/"+name+`"`) {
				t.Errorf("nothing refers to %s/%s", kind, name)
			}
		}
	}
}

// The lists of problem codes, statuses and titles, and of event kinds, match
// the source.
func TestOpenAPIHasAllCodes(t *testing.T) {
	doc := loadOpenAPI(t)
	var codes []problem.Code
	for _, one := range doc.Components.Schemas["ProblemCode"].Value.OneOf {
		code, _ := one.Value.Const.(string)
		codes = append(codes, problem.Code(code))
		p := problem.New(problem.Code(code), "")
		if one.Value.Title != p.Title || !strings.HasPrefix(one.Value.Description, strconv.Itoa(p.Status)+". ") {
			t.Errorf("%s is %q, %q; want %d, %q", code, one.Value.Description, one.Value.Title, p.Status, p.Title)
		}
	}
	if want := problem.Codes(); !slices.Equal(codes, want) {
		t.Errorf("the codes are\n%v, want, sorted,\n%v", codes, want)
	}
	kinds := map[string]bool{}
	for _, kind := range doc.Components.Schemas["EventKind"].Value.Enum {
		kinds[kind.(string)] = true
	}
	for _, e := range event.List() {
		if !kinds[string(e.Kind)] {
			t.Errorf("EventKind lacks %s", e.Kind)
		}
	}
	if len(kinds) != len(event.List()) {
		t.Errorf("EventKind has %d kinds, want %d", len(kinds), len(event.List()))
	}
}

// Fields that no live answer of a test has are compared as well: schemas have
// the fields of the encoded types, and require those that are always present.
func TestOpenAPIHasTheFieldsOfTheTypes(t *testing.T) {
	doc := loadOpenAPI(t)
	seen := map[string]bool{}
	var compare func(name string, typ reflect.Type)
	compare = func(name string, typ reflect.Type) {
		for typ.Kind() == reflect.Pointer || typ.Kind() == reflect.Slice || typ.Kind() == reflect.Map {
			typ = typ.Elem()
		}
		if seen[name] || typ.Kind() != reflect.Struct {
			return
		}
		seen[name] = true
		ref := doc.Components.Schemas[name]
		if ref == nil {
			t.Errorf("there is no schema %s for %v", name, typ)
			return
		}
		schema := ref.Value
		if more := schema.AdditionalProperties.Has; more == nil || *more {
			t.Errorf("%s allows other properties", name)
		}
		var fields, required []string
		if typ.Implements(reflect.TypeFor[json.Marshaler]()) {
			b, err := json.Marshal(reflect.Zero(typ).Interface())
			var keys map[string]json.RawMessage
			if err != nil || json.Unmarshal(b, &keys) != nil {
				t.Fatalf("%v: %s, %v", typ, b, err)
			}
			required = slices.Collect(maps.Keys(keys))
			fields = slices.Concat(required, optional[name])
		} else {
			fields, required = fieldsOf(typ, func(field string, of reflect.Type) {
				if p := schema.Properties[field]; p != nil {
					if named := componentOf(p); named != "" {
						compare(named, of)
					}
				}
			})
		}
		slices.Sort(fields)
		slices.Sort(required)
		if got := slices.Sorted(maps.Keys(schema.Properties)); !slices.Equal(got, fields) {
			t.Errorf("%s has the properties\n%v, and %v is encoded with\n%v", name, got, typ, fields)
		}
		if got := slices.Sorted(slices.Values(schema.Required)); !slices.Equal(got, required) {
			t.Errorf("%s requires\n%v, and of %v always come\n%v", name, got, typ, required)
		}
	}
	for name, v := range map[string]any{
		"Status": api.Status{}, "Peer": inspect.PeerInfo{}, "RecordList": api.Records{}, "Record": capacity.Record{}, "StreamClaim": capacity.StreamInfo{},
		"Link": sfu.LinkStatus{}, "Session": sfu.SessionStatus{}, "Decision": dht.Decision{}, "Policy": policy.Policy{},
		"Provision": policy.Provision{}, "SignedPolicy": api.PolicyVersion{}, "PolicyTrial": api.PolicyTrial{}, "DrainStatus": api.Drain{},
		"Invitation": api.Invitation{}, "RecordChange": api.RecordChange{}, "Event": event.Event{}, "Ping": api.Ping{}, "EndedSession": api.EndedSession{},
		"Problem": problem.Problem{}, "StreamList": api.Streams{}, "Diagnosis": doctor.Diagnosis{}, "HeldTopic": inspect.HeldTopic{},
		"Config": api.Config{}, "Setting": api.Setting{}, "Reload": api.Reload{},
	} {
		compare(name, reflect.TypeOf(v))
	}
	if _, required := fieldsOf(reflect.TypeFor[api.DrainRequest](), func(string, reflect.Type) {}); len(required) != 2 {
		t.Errorf("DrainRequest has %v", required)
	}
}

// optional are the fields that a zero value lacks, of types with a MarshalJSON.
var optional = map[string][]string{"Record": {"node", "carries"}, "StreamClaim": {"parent"}}

// fieldsOf are the keys of a struct in encoding/json, and those that are always
// present.
func fieldsOf(typ reflect.Type, each func(field string, of reflect.Type)) (all, always []string) {
	for i := range typ.NumField() {
		f := typ.Field(i)
		name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		if name == "-" || !f.IsExported() {
			continue
		}
		if f.Anonymous && name == "" {
			embedded := f.Type
			if embedded.Kind() == reflect.Pointer {
				embedded = embedded.Elem()
			}
			a, b := fieldsOf(embedded, each)
			all, always = append(all, a...), append(always, b...)
			continue
		}
		if name == "" {
			name = f.Name
		}
		all = append(all, name)
		if !strings.Contains(options, "omit") {
			always = append(always, name)
		}
		each(name, f.Type)
	}
	return all, always
}

// componentOf is the name of the schema of p, or of its elements.
func componentOf(p *openapi3.SchemaRef) string {
	switch {
	case p.Ref != "":
		return strings.TrimPrefix(p.Ref, "#/components/schemas/")
	case p.Value.Items != nil:
		return componentOf(p.Value.Items)
	case p.Value.AdditionalProperties.Schema != nil:
		return componentOf(p.Value.AdditionalProperties.Schema)
	}
	return ""
}

// undescribed are the routes that are not part of the API, with the reason.
var undescribed = map[string]string{
	"/":                   "pages",
	"GET /console/state":  "the pages' own, which changes with them",
	"GET /console/events": "the pages' own",
	"/embed/":             "a page", "/weir-player.js": "a module for pages",
	"/debug/pprof/":        "Go's",
	"/debug/pprof/cmdline": "Go's", "/debug/pprof/profile": "Go's", "/debug/pprof/symbol": "Go's", "/debug/pprof/trace": "Go's",
	"/whip/": "another mux, whose routes are looked at too", "/whep/": "likewise", "/session/": "likewise",
	"/session/{id}": "what is not served there",
}

// Every route registered by the source is in the file, and vice versa. The
// source is parsed because a mux has no list of its routes.
func TestOpenAPIHasAllRoutes(t *testing.T) {
	registered := map[string]bool{}
	dirs, err := filepath.Glob("*")
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range append(dirs, ".", "../../sfu/whip", "../../sfu/whip/extension") {
		for _, pattern := range routesIn(t, dir) {
			if undescribed[pattern] != "" {
				continue
			}
			method, path, _ := strings.Cut(pattern, " ")
			registered[method+" "+strings.ReplaceAll(path, "...}", "}")] = true
		}
	}
	for _, path := range []string{"/whip/{stream}", "/whep/{stream}"} {
		registered["OPTIONS "+path] = true // registered in a loop
	}
	described := map[string]bool{}
	for path, item := range loadOpenAPI(t).Paths.Map() {
		for method := range item.Operations() {
			described[method+" "+path] = true
		}
	}
	if len(registered) < 30 {
		t.Fatalf("found the routes %v only", registered)
	}
	for _, route := range slices.Sorted(maps.Keys(registered)) {
		if !described[route] {
			t.Errorf("cmd/weir/api/openapi.yaml lacks %s", route)
		}
	}
	for _, route := range slices.Sorted(maps.Keys(described)) {
		if !registered[route] {
			t.Errorf("cmd/weir/api/openapi.yaml has %s, which is not registered", route)
		}
	}
}

// routesIn are the patterns that the source in dir registers at a mux, by
// Handle, HandleFunc, or the two functions of the admin API.
func routesIn(t *testing.T, dir string) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok || len(call.Args) != 2 {
				return true
			}
			prefix := ""
			switch f := call.Fun.(type) {
			case *ast.SelectorExpr:
				if f.Sel.Name != "Handle" && f.Sel.Name != "HandleFunc" {
					return true
				}
			case *ast.Ident:
				switch f.Name {
				case "get":
					prefix = "GET /api/v1"
				case "handle":
				default:
					return true
				}
			default:
				return true
			}
			lit, ok := call.Args[0].(*ast.BasicLit)
			if !ok || lit.Kind != token.STRING {
				return true
			}
			pattern, err := strconv.Unquote(lit.Value)
			if err == nil && strings.Contains(pattern, "/") {
				found = append(found, prefix+pattern)
			}
			return true
		})
	}
	return found
}
