package main

import (
	"encoding/json"
	"net/http"
	"slices"
	"strconv"
	"sync"
)

// notes is the existing API: plain net/http and plain JSON, without usher.
type notes struct {
	mu   sync.Mutex
	last int
	list []note
}

type note struct {
	ID   string `json:"id"`
	Text string `json:"text"`
}

func (n *notes) all(w http.ResponseWriter, _ *http.Request) {
	n.mu.Lock()
	list := append([]note{}, n.list...)
	n.mu.Unlock()
	writeJSON(w, http.StatusOK, list)
}

func (n *notes) create(w http.ResponseWriter, r *http.Request) {
	var in note
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 1<<16)).Decode(&in); err != nil || in.Text == "" {
		http.Error(w, "A note needs a text.", http.StatusBadRequest)
		return
	}
	n.mu.Lock()
	n.last++
	in.ID = strconv.Itoa(n.last)
	n.list = append(n.list, in)
	n.mu.Unlock()
	writeJSON(w, http.StatusCreated, in)
}

func (n *notes) remove(w http.ResponseWriter, r *http.Request) {
	n.mu.Lock()
	before := len(n.list)
	n.list = slices.DeleteFunc(n.list, func(x note) bool { return x.ID == r.PathValue("id") })
	found := len(n.list) < before
	n.mu.Unlock()
	if !found {
		http.Error(w, "There is no such note.", http.StatusNotFound)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v) // the client may have gone
}
