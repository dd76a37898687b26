package source

// Limit is a limit of an adapter's options: the default where none is set.
func Limit[N int | int64](set, fallback N) N {
	if set > 0 {
		return set
	}
	return fallback
}
