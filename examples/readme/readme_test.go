package main

import (
	"os"
	"strings"
	"testing"
)

func TestTheREADMEShowsThisProgram(t *testing.T) {
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	program, err := os.ReadFile("main.go")
	if err != nil {
		t.Fatal(err)
	}
	_, after, _ := strings.Cut(string(readme), "```go\n")
	shown, _, _ := strings.Cut(after, "```")
	_, code, _ := strings.Cut(string(program), "package main\n")
	if shown != "package main\n"+code {
		t.Error("the program in README.md is not examples/readme/main.go")
	}
	if n := strings.Count(shown, "\n"); n > 20 {
		t.Errorf("the program in README.md has %d lines, want at most 20", n)
	}
}
