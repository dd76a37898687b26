object b08a5b864d2db2186aafaffbfa7ecdbb92f858be
type commit
tag t-ed25519
tagger Ann <ann@example.com> 1795669624 +0000

tag of ed25519
-----BEGIN PGP SIGNATURE-----

iIYEABYIAC4WIQRaWuKKkLXoyOLfUqXFIavJH4WNwgUCawe+eBAcYm9iQGV4YW1w
bGUuY29tAAoJEMUhq8kfhY3CzuoA/3OTzFYQXkVAO+VtUyRR5Q7h5sHMaUgB1R4F
guvXBzQYAP4vff9qezsuQJ4Bw4nuZTGTT0mVlPpC+SmqW8hCUPZqCg==
=58BK
-----END PGP SIGNATURE-----
