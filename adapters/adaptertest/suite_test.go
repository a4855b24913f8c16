package adaptertest_test

import (
	"errors"
	"testing"

	"github.com/usher-go/usher/adapters/adaptertest"
)

func TestResultsAreComparedWithWhatIsDeclared(t *testing.T) {
	router := adaptertest.Router{Differences: map[string]adaptertest.Difference{
		"10.body": {Reason: "a reason", Observed: "the body is empty"},
	}}
	tests := []struct {
		name   string
		id     string
		result error
		passes bool
	}{
		{"no difference", "10.status", nil, true},
		{"a difference that is not declared", "10.status", errors.New("no status"), false},
		{"the declared difference", "10.body", errors.New("usher: the body is empty"), true},
		{"another difference than the declared one", "10.body", errors.New("the body is there twice"), false},
		{"no difference, though one is declared", "10.body", nil, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if err := router.Verify(tt.id, tt.result); (err == nil) != tt.passes {
				t.Errorf("%v", err)
			}
		})
	}
}

func TestDeclarationsMustHaveMeaning(t *testing.T) {
	good := adaptertest.Difference{Reason: "a reason", Observed: "something"}
	tests := []struct {
		name        string
		differences map[string]adaptertest.Difference
		lacks       map[string]string
		faulty      bool
	}{
		{"nothing declared", nil, nil, false},
		{"a difference", map[string]adaptertest.Difference{"10.body": good}, nil, false},
		{"of no behaviour", map[string]adaptertest.Difference{"10.none": good}, nil, true},
		{"without a reason", map[string]adaptertest.Difference{"10.body": {Observed: "something"}}, nil, true},
		{"with nothing observed", map[string]adaptertest.Difference{"10.body": {Reason: "a reason"}}, nil, true},
		{"a lack", nil, map[string]string{"9.body": "a reason"}, false},
		{"a lack of no behaviour", nil, map[string]string{"9.none": "a reason"}, true},
		{"a lack without a reason", nil, map[string]string{"9.body": ""}, true},
		{"both", map[string]adaptertest.Difference{"9.body": good}, map[string]string{"9.body": "a reason"}, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			err := adaptertest.Router{Differences: tt.differences, Lacks: tt.lacks}.Fault()
			if (err != nil) != tt.faulty {
				t.Errorf("%v", err)
			}
		})
	}
}
