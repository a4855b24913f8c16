package idempotency_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"

	"github.com/usher-go/usher/idempotency"
)

// The documentation of the package lists each refusal once, under what Discovery says about
// it.
func TestTheDocumentationListsEachRefusal(t *testing.T) {
	text, err := os.ReadFile("doc.go")
	if err != nil {
		t.Fatal(err)
	}
	_, again, _ := strings.Cut(string(text), "//\tthe same request with the same key")
	again, others, found := strings.Cut(again, "//\ta corrected request")
	others, _, ended := strings.Cut(others, "\n//\n")
	if !found || !ended {
		t.Fatal("doc.go has no list of refusals")
	}
	m := newMiddleware(t, idempotency.Config{Required: true})
	w := do(m.Discovery(), httptest.NewRequest(http.MethodGet, "/", nil))
	var policy struct {
		Errors []struct {
			Status int
			Code   string
			Retry  bool
		}
	}
	if err := json.Unmarshal(w.Body.Bytes(), &policy); err != nil {
		t.Fatal(err)
	}
	for _, e := range policy.Errors {
		line := fmt.Sprintf("//\t  %d %s\n", e.Status, e.Code)
		inAgain, inOthers := strings.Count(again+"\n", line), strings.Count(others+"\n", line)
		if e.Retry && (inAgain != 1 || inOthers != 0) || !e.Retry && (inAgain != 0 || inOthers != 1) {
			t.Errorf("%d %s (retry: %v) is listed %d times under the same request, and %d times elsewhere", e.Status, e.Code, e.Retry, inAgain, inOthers)
		}
	}
	if lines := strings.Count(again, "//\t  ") + strings.Count(others, "//\t  "); lines != len(policy.Errors) || lines == 0 {
		t.Errorf("%d refusals are listed, want %d", lines, len(policy.Errors))
	}
}
