package adaptertest

import (
	"bytes"
	"encoding/json"
	"os"
	"testing"
)

// A declaration is the content of a router's file, for the table.
type declaration struct {
	Router     string          `json:"router"`
	Allocs     int             `json:"allocs"`
	Behaviours []declaredState `json:"behaviours"`
}

type declaredState struct {
	ID     string `json:"id"`
	State  string `json:"state"`
	Reason string `json:"reason,omitempty"`
}

// The states of a behaviour.
const (
	alike   = "same"
	differs = "differs"
	lacks   = "lacks"
)

func declare(router Router) declaration {
	d := declaration{Router: router.Name, Allocs: router.Allocs}
	for _, row := range rows {
		for _, b := range row.behaviours {
			state := declaredState{ID: row.id(b), State: alike}
			if difference, ok := router.Differences[state.ID]; ok {
				state.State, state.Reason = differs, difference.Reason
			} else if reason, ok := router.Lacks[state.ID]; ok {
				state.State, state.Reason = lacks, reason
			}
			d.Behaviours = append(d.Behaviours, state)
		}
	}
	return d
}

// checkDeclaration compares the file of router with what router declares. The rest of the
// suite compares the declarations with what router does.
func checkDeclaration(t *testing.T, router Router) {
	if router.Declaration == "" {
		return
	}
	want, err := json.MarshalIndent(declare(router), "", "\t")
	if err != nil {
		t.Fatal(err)
	}
	want = append(want, '\n')
	if os.Getenv("USHER_UPDATE") == "1" {
		if err := os.WriteFile(router.Declaration, want, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(router.Declaration)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s is not what the router declares; USHER_UPDATE=1 go test writes it", router.Declaration)
	}
}
