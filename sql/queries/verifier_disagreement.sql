-- How often do two verifiers, or two versions of one, judge the same response against the same gold answer differently?
-- Over all runs; a row is a pair of verifiers and a pair of statuses, agreement included. changed_verdicts lists responses, the
-- view verifiers says what each verifier is: two of one name and version differ in their settings.
SELECT
    a.verifier AS first_verifier,
    a.verifier_version AS first_version,
    b.verifier AS second_verifier,
    b.verifier_version AS second_version,
    a.status AS first_status,
    b.status AS second_status,
    a.status = b.status AS agree,
    count(*) AS responses,
    count(*) / sum(count(*)) OVER (PARTITION BY a.verifier_id, b.verifier_id) AS share,
    min(a.trajectory_id) AS example_trajectory_id,
    a.verifier_id AS first_verifier_id,
    b.verifier_id AS second_verifier_id,
    (SELECT settings FROM store.verifiers WHERE verifier_id = a.verifier_id) AS first_settings,
    (SELECT settings FROM store.verifiers WHERE verifier_id = b.verifier_id) AS second_settings
FROM verdicts AS a
JOIN verdicts AS b
  ON b.trajectory_id = a.trajectory_id
 AND b.gold IS NOT DISTINCT FROM a.gold
 AND (a.verifier_version, a.verifier_id) < (b.verifier_version, b.verifier_id)
GROUP BY a.verifier_id, b.verifier_id, a.verifier, a.verifier_version, b.verifier, b.verifier_version, a.status, b.status
ORDER BY first_version, second_version, a.verifier_id, b.verifier_id, agree, responses DESC, first_status, second_status;
