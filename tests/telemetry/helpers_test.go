package telemetry_test

import (
	"strings"
	"testing"

	"go.opentelemetry.io/otel/attribute"

	"github.com/usher-go/usher/internal/compare"
)

func equal(t *testing.T, want, got any) {
	t.Helper()
	if diff := compare.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

// values encodes attributes as name=value,name=value.
type values struct{}

func (values) Encode(i attribute.Iterator) string {
	var all []string
	for i.Next() {
		all = append(all, string(i.Attribute().Key)+"="+i.Attribute().Value.String())
	}
	return strings.Join(all, ",")
}

func (values) ID() attribute.EncoderID { return attribute.EncoderID{} }
