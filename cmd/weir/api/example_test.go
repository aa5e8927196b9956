package api_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"

	"weir/cmd/weir/api"
	"weir/sfu/problem"
)

// The admin API of a node answers with JSON, or with a problem that has a code
// for programs.
func ExampleClient() {
	node := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/api/v1/status" {
			fmt.Fprint(w, `{"name": "fra1", "state": "active", "viewers": 17}`)
			return
		}
		problem.New(problem.NotFound, "no such path").Write(w)
	}))
	defer node.Close()

	client := api.Client{URL: node.URL} // of a real node, http://127.0.0.1:8081
	status, err := client.Status(context.Background())
	fmt.Println(status.Name, status.State, status.Viewers, err)

	err = client.Get(context.Background(), "/weather", new(any))
	var refused *api.RefusedError
	if errors.As(err, &refused) {
		fmt.Println(refused.Status, refused.Said.Code)
	}

	// Output:
	// fra1 active 17 <nil>
	// 404 Not Found not-found
}
