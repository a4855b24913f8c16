// Package usherpg keeps the data of usher in PostgreSQL.
package usherpg
