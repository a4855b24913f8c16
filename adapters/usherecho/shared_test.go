package usherecho_test

import (
	"flag"
	"os"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write what is generated")

// Both adapters of echo have this file, as neither may import what is internal to another
// module.
func TestSharedFile(t *testing.T) {
	source, err := os.ReadFile("shared.go")
	if err != nil {
		t.Fatal(err)
	}
	want := strings.Replace(string(source), "package usherecho\n", "// Code generated from usherecho/shared.go by go generate. DO NOT EDIT.\n\npackage usherecho4\n", 1)
	want = strings.Replace(want, "// This file does not import echo: go generate copies it to the adapter of the other version.\n\n//go:generate go test -run TestSharedFile -update\n\n", "", 1)
	const other = "../usherecho4/shared.go"
	if *update {
		if err := os.WriteFile(other, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := os.ReadFile(other); err != nil || string(got) != want {
		t.Errorf("%s differs from shared.go: run go generate (%v)", other, err)
	}
}
